"""Headless Chromium, spoken to in the DevTools protocol over a pipe (descriptors 3 and 4, messages ended by a zero byte), so that it
needs no package."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --remote-debugging-pipe"
)
PATIENCE = 120.0
"""Seconds for what comes at once on a machine that has nothing else to do: what is waited for is a state, never a time."""


PLACE = """(element => {
    element.scrollIntoView({block: 'center'});
    const box = element.getBoundingClientRect(), x = box.x + box.width / 2, y = box.y + box.height / 2;
    return element.contains(document.elementFromPoint(x, y)) ? [x, y] : null;
})(document.querySelector(SELECTOR))"""


class Browser:
    def __init__(self, profile: Path) -> None:
        read, self.write = os.pipe()
        self.read, write = os.pipe()
        command = f'exec "$0" {FLAGS} --user-data-dir="$1" 3<&{read} 4>&{write}'
        self.process = subprocess.Popen(
            ["bash", "-c", command, str(CHROMIUM), str(profile)],
            pass_fds=(read, write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read)
        os.close(write)
        self.buffer, self.number, self.session = b"", 0, None
        self.events: list[dict] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def call(self, method: str, **params: object) -> dict:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, method: str) -> None:
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self.receive())

    def receive(self) -> dict:
        while b"\0" not in self.buffer:
            assert select.select([self.read], [], [], PATIENCE)[0], "Chromium says nothing"
            piece = os.read(self.read, 1 << 20)
            assert piece, "Chromium ended"
            self.buffer += piece
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def evaluate(self, expression: str) -> object:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)[
            "result"
        ].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        key_event = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **key_event)
        self.call("Input.dispatchKeyEvent", type="keyUp", **key_event)

    def open(self, page: Path, width: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)
        self.call("Page.navigate", url=page.as_uri())
        self.wait_for("Page.loadEventFired")
        drawn = "[...document.querySelectorAll('.plot')].every(plot => plot.querySelector('.main-svg'))"
        self.until(f"document.readyState === 'complete' && {drawn}")

    def close(self) -> None:
        self.session = None
        self.call("Browser.close")
        self.process.wait(timeout=PATIENCE)
        os.close(self.read)
        os.close(self.write)

    # ---------------------------------------------------------------------------------------- pages that a server sends

    def visit(self, address: str, width: int, height: int = 900) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.events.clear()
        self.call("Page.navigate", url=address)
        self.wait_for("Page.loadEventFired")

    def until(self, expression: str) -> None:
        end = time.monotonic() + PATIENCE
        while not self.evaluate(f"!!({expression})"):
            assert time.monotonic() < end, expression
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        """With the mouse, in the middle of it, once it stands still and nothing lies over it."""
        self.until(f"document.querySelector({json.dumps(selector)})")
        end, before = time.monotonic() + PATIENCE, None
        while (place := self.evaluate(PLACE.replace("SELECTOR", json.dumps(selector)))) != before or not place:
            assert time.monotonic() < end, selector
            before = place
            self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        assert isinstance(place, list)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def type_in(self, text: str) -> None:
        """As from the keyboard, into what has the focus."""
        self.call("Input.insertText", text=text)

    def picture(self, file: Path) -> None:
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 4000), "scale": 1}
        shot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))
