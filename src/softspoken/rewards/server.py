"""softspoken score --serve: a reward of ours as the server that `--reward http://HOST:PORT/score` asks (served.py has the form).

One request is scored at a time, for a model is no faster with several; so many may wait, each for so long. What is too large, too
much or too late is refused with a sentence, and nothing grows with what is sent.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from softspoken.config import ScoreConfig
from softspoken.data.files import parse_json
from softspoken.rewards.terms import WeightedReward, load_reward
from softspoken.runtime.addresses import require_free
from softspoken.types import Example, InputError, RunError

log = logging.getLogger(__name__)

LARGEST_BODY = 32 << 20
"""Bytes of a request."""
MOST_WAITING = 64
"""Requests, with the one that is scored."""
LONGEST = 300.0
"""Seconds that a request waits for its turn and its scores."""


def serve(config: ScoreConfig) -> None:
    """Answer until stopped. Raises InputError where the address is none or the extra is not installed."""
    try:
        import uvicorn
    except ImportError as error:
        raise InputError(
            "serve needs uvicorn and FastAPI, which are not installed; pip install 'softspoken[serve]'"
        ) from error
    host, port = address_of(config.serve or "")
    require_free(host, port)
    reward = load_reward(
        config.reward, device=config.device, batch_size=config.batch_size, detoxify_sha256=config.detoxify_sha256
    )
    log.info("answers with %s at http://%s:%d/score", config.reward, host, port)
    settings = uvicorn.Config(
        app_of(reward),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=30,
        lifespan="off",
    )
    server = uvicorn.Server(settings)
    try:
        server.run()
    except KeyboardInterrupt:  # to be stopped is how a server ends
        log.info("stopped; all that was asked is answered")
    except SystemExit as error:  # which is how uvicorn says that it cannot listen
        raise InputError(
            f"serve {config.serve!r}: the address cannot be listened at; is another server there?"
        ) from error


def address_of(serve: str) -> tuple[str, int]:
    """`127.0.0.1:8000`, `:8000` (this machine alone), `[::1]:8000`."""
    host, colon, port = serve.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise InputError(
            f"serve {serve!r} cannot be used: give HOST:PORT, such as 127.0.0.1:8000, with a port from 1 to 65535"
        )
    return host.strip("[]") or "127.0.0.1", int(port)


def app_of(reward: WeightedReward, *, most_waiting: int = MOST_WAITING, longest: float = LONGEST) -> Any:
    """The application, of FastAPI's."""
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse

    app = FastAPI(title="softspoken score", openapi_url=None)
    turn, waiting = asyncio.Semaphore(1), 0

    async def answer(request: Request) -> JSONResponse:
        nonlocal waiting
        if waiting >= most_waiting:
            return JSONResponse({"error": f"{waiting} requests are waiting"}, 503, {"Retry-After": "1"})
        waiting += 1
        try:
            return JSONResponse({"scores": await asyncio.wait_for(scored(request), longest)})
        except asyncio.TimeoutError:
            return JSONResponse(
                {"error": f"no scores within {longest:g} s; send smaller batches"}, 503, {"Retry-After": "1"}
            )
        except InputError as error:
            return JSONResponse({"error": str(error)}, 400)
        except RunError as error:
            return JSONResponse({"error": str(error)}, 500)
        finally:
            waiting -= 1

    async def scored(request: Request) -> list[float | None]:
        responses, examples = rows_of(await _body(request))
        await turn.acquire()
        # A thread cannot be stopped: where the time is over it goes on to its end, and has its turn until then.
        work = asyncio.get_running_loop().run_in_executor(None, partial(scores_of, reward, responses, examples))
        work.add_done_callback(lambda _: turn.release())
        return await asyncio.shield(work)

    async def alive() -> dict[str, Any]:
        return {"status": "ok", "waiting": waiting}

    # By hand and not as decorators: with postponed annotations FastAPI would look for Request among this module's names.
    app.add_route("/score", answer, methods=["POST"])
    app.add_api_route("/health", alive, methods=["GET"])
    return app


async def _body(request: Any) -> bytes:
    content = b""
    async for piece in request.stream():
        content += piece
        if len(content) > LARGEST_BODY:
            raise InputError(f"the request has more than {LARGEST_BODY:,} bytes; send smaller batches")
    return content


def rows_of(body: bytes) -> tuple[list[str], list[Example]]:
    """What a request asks about. Raises InputError where it is not in the form."""
    try:
        sent = parse_json(body.decode("utf-8"), "the request")
    except UnicodeDecodeError as error:
        raise InputError("the request is not UTF-8; send JSON in UTF-8") from error
    if not isinstance(sent, Mapping):
        raise InputError("the request must be an object with responses, texts, references and columns")
    responses = _list(sent, "responses", None)
    if not all(isinstance(one, str) for one in responses):
        raise InputError("the request's responses must be a list of texts")
    texts = _list(sent, "texts", len(responses)) or [""] * len(responses)
    references = _list(sent, "references", len(responses)) or [[]] * len(responses)
    columns = sent.get("columns") or {}
    if not isinstance(columns, Mapping):
        raise InputError("the request's columns must be an object with a list for each name")
    named = {name: _list(columns, name, len(responses)) for name in columns}
    examples = []
    for number, (text, given) in enumerate(zip(texts, references, strict=True)):
        each = [given] if isinstance(given, str) else given
        if not isinstance(text, str) or not isinstance(each, list) or not all(isinstance(one, str) for one in each):
            raise InputError("the request's texts must be texts, and its references lists of texts")
        row = {name: values[number] for name, values in named.items() if values}
        examples.append(
            Example(str(number + 1), text, each[0] if each else None, further_references=tuple(each[1:]), columns=row)
        )
    return responses, examples


def _list(sent: Mapping[str, Any], name: str, length: int | None) -> list[Any]:
    values = sent.get(name)
    if values is None and length is not None:
        return []
    if not isinstance(values, list) or (length is not None and len(values) != length):
        among = "" if length is None else f", one for each of its {length} responses"
        raise InputError(f"the request's {name} must be a list{among}")
    return values


def scores_of(reward: WeightedReward, responses: list[str], examples: list[Example]) -> list[float | None]:
    """None where no term has an opinion."""
    totals = reward(responses, examples).total.tolist() if responses else []
    return [None if math.isnan(total) else total for total in totals]
