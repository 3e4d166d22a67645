"""A reward server of the standard library alone, as a process of its own, that misbehaves as it is told: python reward_server.py PORT WAY FOLDER.

It scores a response by its length; of its requests it keeps count in FOLDER/asked, one line each.
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT, WAY, FOLDER = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
BODIES = {
    "few": b'{"scores": [1.0]}',
    "words": b'{"scores": ["high", 1.0, 1.0]}',
    "html": b"<html>hello</html>",
    "endless": b"x" * 1_000_000,
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        count = len(sent["responses"])
        with (FOLDER / "asked").open("a") as asked:
            asked.write(json.dumps(sent) + "\n")
        tries = len((FOLDER / "asked").read_text().splitlines()) - 1  # the first asks whether it is there
        if not count:
            return self.answer(200, b'{"scores": []}')
        if WAY == "fails_twice" and tries <= 2:
            return self.answer(503, b'{"error": "warming up"}')
        if WAY == "refuses":
            return self.answer(400, b'{"error": "no such language"}')
        if WAY == "moves":
            return self.answer(302, b"", Location="http://127.0.0.1:1/")
        if WAY == "slow_once" and tries == 1:
            time.sleep(3600)
        if WAY == "dies_once" and tries == 1:
            os._exit(1)  # in the middle of a request
        if WAY == "drips":
            self.send_response(200)
            self.send_header("Content-Length", "1000000000")
            self.end_headers()
            while True:
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.05)
        scores = [None if text == "?" else float(len(text)) for text in sent["responses"]]
        return self.answer(200, BODIES.get(WAY) or json.dumps({"scores": scores}).encode())

    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass


ThreadingHTTPServer.allow_reuse_address = True
ThreadingHTTPServer.daemon_threads = True
server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
print("listening", flush=True)
server.serve_forever()
