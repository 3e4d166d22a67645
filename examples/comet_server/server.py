"""COMET as a reward server: what softspoken's --reward http://127.0.0.1:8010/score asks (docs/rewards.md has the form).

Runs in an environment of its own (README.md), with nothing of softspoken's and no web framework: COMET's own dependencies have none.
"""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LARGEST_BODY = 32 << 20
"""Bytes of a request."""
MOST_WAITING = 32
Scorer = Callable[[list[dict[str, str]]], list[float]]
"""Rows of src, mt and, for models with references, ref → a score each."""


def load_comet(model: str, batch_size: int) -> tuple[Scorer, bool]:
    """The scorer, and whether it compares with references; `model` is a name of the hub or a checkpoint's path."""
    import torch
    from comet import download_model, load_from_checkpoint

    path = model if model.endswith(".ckpt") else download_model(model)
    comet = load_from_checkpoint(path)
    gpus = int(torch.cuda.is_available())

    def score(rows: list[dict[str, str]]) -> list[float]:
        return list(comet.predict(rows, batch_size=batch_size, gpus=gpus, progress_bar=False, num_workers=0).scores)

    return score, bool(comet.requires_references())


def rows_of(sent: Any, with_references: bool) -> list[dict[str, str] | None]:
    """COMET's rows of a request; None for a response whose text has no reference, where the model needs one: it has no opinion there.

    Raises ValueError for what is not in the form.
    """
    if not isinstance(sent, dict):
        raise ValueError("the request must be an object")
    responses, texts = sent.get("responses"), sent.get("texts")
    if not isinstance(responses, list):
        raise ValueError("responses must be a list")
    references = sent.get("references") or [[]] * len(responses)
    if not isinstance(texts, list) or not len(responses) == len(texts) == len(references):
        raise ValueError("texts and references must be lists with one place for each response")
    if not all(isinstance(one, str) for one in [*responses, *texts]):
        raise ValueError("responses and texts must be texts")
    rows: list[dict[str, str] | None] = []
    for response, text, given in zip(responses, texts, references, strict=True):
        row = {"src": text, "mt": response}
        if with_references:
            rows.append({**row, "ref": given[0]} if given else None)
        else:
            rows.append(row)
    return rows


def serve(scorer: Scorer, with_references: bool, host: str, port: int) -> ThreadingHTTPServer:
    """A server that is ready to `serve_forever`; one request is scored at a time."""
    turn, waiting = threading.Lock(), threading.Semaphore(MOST_WAITING)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60  # seconds that a client may take to send

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal() or int(length) > LARGEST_BODY:
                self.close_connection = True
                return self._answer(413, {"error": f"send a Content-Length of at most {LARGEST_BODY:,}"})
            body = self.rfile.read(int(length))
            if not waiting.acquire(blocking=False):
                return self._answer(503, {"error": "too many requests are waiting"})
            try:
                rows = rows_of(json.loads(body), with_references)
                asked = [row for row in rows if row is not None]
                with turn:
                    scores = iter(scorer(asked) if asked else [])
                return self._answer(200, {"scores": [None if row is None else float(next(scores)) for row in rows]})
            except (ValueError, RecursionError) as error:
                return self._answer(400, {"error": str(error)})
            except Exception as error:  # a model can fail in any way; the client tries again and then says this
                return self._answer(500, {"error": f"{type(error).__name__}: {error}"})
            finally:
                waiting.release()

        def _answer(self, status: int, said: dict[str, Any]) -> None:
            content = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """One line a request would drown what matters."""

    return ThreadingHTTPServer((host, port), Handler)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="Unbabel/wmt22-comet-da", help="a name of the hub, or the path of a .ckpt")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8010)
    parser.add_argument("--batch_size", type=int, default=32)
    options = parser.parse_args()
    scorer, with_references = load_comet(options.model, options.batch_size)
    server = serve(scorer, with_references, options.host, options.port)
    print(f"{options.model} answers at http://{options.host}:{options.port}/score", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
