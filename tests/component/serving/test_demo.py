"""The page in headless Chromium, by clicks and by keyboard, wide and narrow."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
pytest.importorskip("gradio")

from browser import CHROMIUM, Browser
from softspoken.config import DemoConfig
from softspoken.serving.demo import page
from tiny_adapters import add_adapter

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed (apt-get install chromium)")
ANSWERED = "document.querySelectorAll('#result .ss-side').length === 2"
BLUR = "getComputedStyle(document.querySelector('#shown .ss-abuse')).filter"


@pytest.fixture(scope="module")
def address(tiny_t5: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("adapters")
    adapters = [str(add_adapter(tiny_t5, folder / name, seed)) for seed, name in enumerate(("calm", "kind"), start=1)]
    blocks: Any = page(DemoConfig(model=str(tiny_t5), adapter=adapters, engine="torch", samples=2))
    blocks.queue(max_size=4)
    _, address, _ = blocks.launch(prevent_thread_lock=True, quiet=True, **blocks.look)
    yield address
    blocks.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


def went_wrong(browser: Browser) -> list[dict[str, Any]]:
    return [event for event in browser.events if event.get("method") == "Runtime.exceptionThrown"]


def test_by_clicks_on_a_wide_page(browser: Browser, address: str) -> None:
    browser.visit(address, 1280)
    browser.until("document.querySelector('#shown .ss-abuse')")
    assert "blur" in str(browser.evaluate(BLUR))
    browser.click("#shown .ss-abuse")
    browser.until(f"({BLUR}) === 'none'")
    browser.click("#ask")
    browser.until(ANSWERED)
    names = "[...document.querySelectorAll('#result h3')].map(e => e.textContent).join()"
    assert browser.evaluate(names) == "base,calm"
    left, right = "document.querySelectorAll('#result .ss-side')[0]", "document.querySelectorAll('#result .ss-side')[1]"
    assert browser.evaluate(f"{left}.getBoundingClientRect().top === {right}.getBoundingClientRect().top")
    assert browser.evaluate("document.querySelectorAll('#result ol')[0].children.length") == 2
    assert browser.evaluate("document.querySelectorAll('#result meter').length >= 4")
    hosts = {
        event["params"]["request"]["url"].split("/")[2]
        for event in browser.events
        if event.get("method") == "Network.requestWillBeSent" and event["params"]["request"]["url"].startswith("http")
    }
    assert hosts == {address.split("/")[2]}  # nothing is fetched from elsewhere
    assert went_wrong(browser) == []


def test_by_keyboard_on_a_narrow_page(browser: Browser, address: str) -> None:
    browser.visit(address, 390)
    browser.until("document.querySelector('#own textarea')")
    browser.evaluate("document.querySelector('#own textarea').focus()")
    browser.type_in("Nora: you <b>idiot</b>\nFelix: sorry")
    for _ in range(12):  # past the choice of an adapter
        browser.press("Tab", 9)
        if browser.evaluate("document.activeElement.id === 'ask'"):
            break
    assert browser.evaluate("document.activeElement.id") == "ask"
    browser.press("Enter", 13, "\r")
    browser.until(ANSWERED)
    sides = (
        "[...document.querySelectorAll('#result .ss-side')].map(e => Math.round(e.getBoundingClientRect().left)).join()"
    )
    left, right = str(browser.evaluate(sides)).split(",")
    assert left == right  # below one another
    assert int(str(browser.evaluate("document.documentElement.scrollWidth"))) <= 390
    assert went_wrong(browser) == []
