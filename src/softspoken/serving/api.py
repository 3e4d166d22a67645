"""The application: /v1/generate, /v1/score, /v1/reload, /health, /ready, /metrics, and at /docs how to ask them (/openapi.json)."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
import signal
import time
from collections.abc import AsyncIterator, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from softspoken.config import ServeConfig
from softspoken.inference.engines import Search
from softspoken.serving.asking import POLICY, page
from softspoken.serving.batching import Batcher, Shed, Work
from softspoken.serving.guard import Guard, Guarded
from softspoken.serving.http import Gate
from softspoken.serving.keys import Keys
from softspoken.serving.models import Models, Prompt, Served
from softspoken.serving.observed import Observed
from softspoken.types import InputError, one_line
from softspoken.types import Response as Text

log = logging.getLogger(__name__)

VERSION = importlib.metadata.version("softspoken")
DIALOGUE = "Nora: Where are you?\nFelix: On the bus, ten minutes."


class GenerateRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"texts": [DIALOGUE]}, {"texts": [DIALOGUE], "samples": 4, "max_new_tokens": 40}]
        },
    )
    texts: list[str] = Field(min_length=1, description="what is to be answered (dialogues to be summarized, say)")
    max_new_tokens: int | None = Field(
        None, ge=1, description="longest response, in tokens; by default the model's own"
    )
    num_beams: int | None = Field(None, ge=1, description="beams of the search; by default the model's own")
    samples: int | None = Field(
        None, ge=1, description="responses to each text, drawn at temperature 1; without, one that is searched for"
    )
    adapter: str | None = Field(None, description="which of the server's adapters; by default its first")


class Answer(BaseModel):
    input: int = Field(description="which of the request's texts it answers, from 0 on")
    text: str
    scores: dict[str, dict[str, float]] = Field(description="judge → label → probability, of this text")
    first_scores: dict[str, dict[str, float]] = Field(description="the same of what the model said first")
    guard: str = Field(description="passed; retried, masked or refused: in place of what was too toxic; or off")
    truncated: bool = Field(description="whether the length limit ended it")
    text_cut: bool = Field(description="whether the text it answers was longer than the model reads, and was cut")


class GenerateAnswer(BaseModel):
    responses: list[Answer]
    model: str
    adapter: str
    weights: str = Field(description="the first digits of what the weights hash to: another after a reload of others")
    version: str = Field(description="of softspoken")


class ScoreRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"texts": ["Felix is late, the idiot."]}]}
    )
    texts: list[str] = Field(min_length=1)


class ScoreAnswer(BaseModel):
    scores: list[dict[str, dict[str, float]]] = Field(description="for each text judge → label → probability")
    model: str
    version: str


class ReloadRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"adapter": "tuned"}, {}]})
    adapter: str | None = Field(None, description="which to read again from where it lies; by default all")


class ReloadAnswer(BaseModel):
    weights: dict[str, str] = Field(description="adapter → the first digits of what its weights hash to now")
    version: str


class Wrong(BaseModel):
    error: str = Field(description="a sentence")


@dataclass(frozen=True)
class Asked:
    """A key of the batcher: what may share a batch."""

    served: Served
    search: Search


@dataclass(frozen=True)
class Done:
    guarded: list[Guarded]


class Service:
    """What the application's routes share."""

    def __init__(self, config: ServeConfig, models: Models, guard: Guard | None) -> None:
        self.config, self.models, self.guard = config, models, guard
        self.observed = Observed(lambda: len(self.batcher.waiting) if self.started else 0)
        self.started = False
        self.batcher: Batcher
        self.reading = ThreadPoolExecutor(1, thread_name_prefix="tokens")
        """One thread: a tokenizer is not to be used by two."""

    def start(self) -> None:
        """In the event loop."""
        self.batcher = Batcher(
            self._compute,
            workers=self.models.workers,
            batch_size=self.config.batch_size,
            queue_size=self.config.queue_size,
            on_batch=self._on_batch,
        )
        self.batcher.start()
        self.started = True

    # ------------------------------------------------------------------------------------------------- in the loop

    def require_room(self) -> None:
        """Raises Shed where there is none for one text."""
        self.batcher.require_room(1, self.config.deadline)

    async def generate(self, request: Request, asked: GenerateRequest) -> GenerateAnswer:
        start = time.perf_counter()
        search = self._search(asked)
        self._require_texts(asked.texts)
        served = self._served(asked.adapter)
        cost = max(1, search.samples)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.config.deadline
        with self.batcher.room(len(asked.texts) * cost, self.config.deadline):
            prompts = await loop.run_in_executor(self.reading, served.prompts, asked.texts)
            works = [
                Work(prompt.ids, len(prompt.ids), Asked(served, search), deadline, loop.create_future(), cost)
                for prompt in prompts
            ]
            self.batcher.submit(works)
        done: list[Done] = await self._answered(request, works)
        self.observed.seconds.labels("total").observe(time.perf_counter() - start)
        answers = [
            self._answer(row, prompt, guarded)
            for row, (prompt, one) in enumerate(zip(prompts, done, strict=True))
            for guarded in one.guarded
        ]
        return GenerateAnswer(
            responses=answers, model=self.config.model, adapter=served.name, weights=served.weights, version=VERSION
        )

    async def score(self, request: Request, asked: ScoreRequest) -> ScoreAnswer:
        self._require_texts(asked.texts)
        if not self.guard:
            raise HTTPException(404, "this server has no judge; it was started with guard false")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.config.deadline
        with self.batcher.room(len(asked.texts), self.config.deadline):
            works = [Work(text, len(text) // 4, "score", deadline, loop.create_future()) for text in asked.texts]
            self.batcher.submit(works)
        scores: list[dict[str, float]] = await self._answered(request, works)
        named = [{self.guard.judge.name: one} for one in scores]
        return ScoreAnswer(scores=named, model=self.config.model, version=VERSION)

    async def reload(self, asked: ReloadRequest) -> ReloadAnswer:
        loop = asyncio.get_running_loop()
        try:
            fresh = await loop.run_in_executor(None, self.models.reload, asked.adapter)
        except InputError as error:
            raise HTTPException(422, f"{error}; what was served is still served") from error
        return ReloadAnswer(weights={name: one.weights for name, one in fresh.items()}, version=VERSION)

    async def _answered(self, request: Request, works: list[Work]) -> list[Any]:
        """All works' results; where the client goes first, what is not begun is dropped."""
        results: asyncio.Future[list[Any]] = asyncio.gather(*(work.done for work in works))
        gone: asyncio.Future[Any] = asyncio.create_task(_has_gone(request))
        try:
            await asyncio.wait({results, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not results.done():
                self.observed.gone.inc()
                raise HTTPException(499, "the client has gone")
            return list(await results)
        finally:
            gone.cancel()
            self.batcher.forget(works)
            results.add_done_callback(_looked_at)

    # ------------------------------------------------------------------------------------------------------ limits

    def _search(self, asked: GenerateRequest) -> Search:
        config = self.config
        for name, most in (
            ("max_new_tokens", config.most_new_tokens),
            ("num_beams", config.most_beams),
            ("samples", config.most_samples),
        ):
            value = getattr(asked, name)
            if value is not None and value > most:
                raise HTTPException(422, f"{name} {value} is more than this server gives; ask for {most} or less")
        if asked.samples and asked.num_beams:
            raise HTTPException(422, "samples are drawn and num_beams searched with; ask for one of them")
        return Search(asked.samples or 0, asked.max_new_tokens, asked.num_beams)

    def _require_texts(self, texts: list[str]) -> None:
        config = self.config
        if len(texts) > config.most_texts:
            raise HTTPException(
                413, f"{len(texts)} texts are more than a request may have; send {config.most_texts} or fewer"
            )
        for number, text in enumerate(texts):
            if len(text) > config.most_text_chars:
                raise HTTPException(
                    413, f"texts.{number} has {len(text):,} characters; send {config.most_text_chars:,} or fewer"
                )
            if not text.strip():
                raise HTTPException(422, f"texts.{number} is empty; leave it out")

    def _served(self, name: str | None) -> Served:
        try:
            return self.models[name]
        except InputError as error:
            raise HTTPException(422, str(error)) from error

    # -------------------------------------------------------------------------------------------------- in a thread

    def _compute(self, key: Hashable, whats: list[Any]) -> list[Any]:
        if not isinstance(key, Asked):
            assert self.guard
            return list(self.guard.score(whats))
        start = time.perf_counter()
        found = key.served.respond(whats, key.search)
        self.observed.seconds.labels("decode").observe(time.perf_counter() - start)
        if not self.guard:
            return [Done([Guarded(one, {}, "passed", {}) for one in own]) for own in found]
        return self._guarded(key, whats, found, self.guard)

    def _guarded(self, key: Asked, prompts: list[list[int]], found: list[list[Text]], guard: Guard) -> list[Done]:
        start = time.perf_counter()
        owners = [row for row, own in enumerate(found) for _ in own]

        def again(rows: list[int]) -> list[list[Text]]:
            search = Search(guard.samples, key.search.max_new_tokens)
            return key.served.respond([prompts[owners[row]] for row in rows], search)

        guarded = guard([one for own in found for one in own], again)
        self.observed.seconds.labels("judge").observe(time.perf_counter() - start)
        rest = iter(guarded)
        done = [Done([next(rest) for _ in own]) for own in found]
        for one in guarded:
            self.observed.guard.labels(one.decision).inc()
        return done

    def _answer(self, row: int, prompt: Prompt, guarded: Guarded) -> Answer:
        judge = self.guard.judge.name if self.guard else ""
        return Answer(
            input=row,
            text=guarded.response.text,
            scores={judge: guarded.scores} if self.guard else {},
            first_scores={judge: guarded.first_scores} if self.guard else {},
            guard=guarded.decision if self.guard else "off",
            truncated=bool(guarded.response.cut),
            text_cut=prompt.cut,
        )

    def _on_batch(self, size: int, waits: list[float]) -> None:
        self.observed.batch.observe(size)
        for wait in waits:
            self.observed.seconds.labels("queue").observe(wait)


def _looked_at(done: asyncio.Future[Any]) -> None:
    """What came of it is nobody's any more; unlooked at, asyncio would say so for each."""
    if not done.cancelled():
        done.exception()


async def _has_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def create_app(config: ServeConfig, models: Models, guard: Guard | None, keys: Keys | None) -> Any:
    """The ASGI application, whose `service` the command and tests look into."""
    service = Service(config, models, guard)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        _reload_on_signal(service)
        yield
        await service.batcher.drain()

    app = FastAPI(
        title="softspoken",
        version=VERSION,
        description="Responses of a tuned model, each judged before it leaves.",
        lifespan=lifespan,
        docs_url=None,  # theirs run a script of a CDN's
        redoc_url=None,
        responses={status: {"model": Wrong} for status in (401, 408, 413, 415, 422, 429, 503)},
    )
    app.state.service = service

    @app.post("/v1/generate")
    async def generate(request: Request, asked: GenerateRequest) -> GenerateAnswer:
        """Answer each text."""
        return await service.generate(request, asked)

    @app.post("/v1/score")
    async def score(request: Request, asked: ScoreRequest) -> ScoreAnswer:
        """Judge each text."""
        return await service.score(request, asked)

    @app.post("/v1/reload")
    async def reload(asked: ReloadRequest) -> ReloadAnswer:
        """Read adapters again from where they lie; requests meanwhile are answered by the old ones."""
        return await service.reload(asked)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the process is alive."""
        return {"status": "alive", "version": VERSION}

    @app.get("/ready")
    async def ready() -> JSONResponse:
        """Whether requests are taken on."""
        good = service.started and not service.batcher.draining
        return JSONResponse({"ready": good, "adapters": [one.name for one in models]}, 200 if good else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counts and times, for Prometheus."""
        return Response(service.observed.page(), media_type="text/plain; version=0.0.4")

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        text = page(app.openapi(), str(request.base_url), key=keys is not None)
        return HTMLResponse(text, headers={"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"})

    @app.exception_handler(Shed)
    async def on_shed(request: Request, shed: Shed) -> JSONResponse:
        service.observed.sheds.labels(shed.status).inc()
        return JSONResponse({"error": str(shed)}, shed.status, {"Retry-After": str(shed.retry_after)})

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": one_line(str(error.detail))}, error.status_code)

    @app.exception_handler(InputError)
    async def on_input(request: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 422)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"error": _sentence(error)}, 422)

    return Gate(app, config, keys, service.observed, service.require_room)


def _sentence(error: RequestValidationError) -> str:
    """What is wrong first, and where."""
    first = error.errors()[0]
    where = () if first["type"] == "json_invalid" else first["loc"]
    place = ".".join(str(part) for part in where if part != "body")
    said = str(first["msg"]).removeprefix("Value error, ")
    known = f"; there is {', '.join(GenerateRequest.model_fields)}" if first["type"] == "extra_forbidden" else ""
    return one_line(f"{place}: {said}{known}" if place else f"the body is not the JSON it should be: {said}")


def _reload_on_signal(service: Service) -> None:
    """SIGHUP reads all adapters again."""
    loop = asyncio.get_running_loop()

    async def read_again() -> None:
        try:
            answer = await service.reload(ReloadRequest(adapter=None))
            log.info("read again: %s", ", ".join(f"{name} {weights}" for name, weights in answer.weights.items()))
        except HTTPException as error:
            log.warning("%s", error.detail)

    tasks: set[asyncio.Task[None]] = set()  # the loop itself holds them weakly

    def begin() -> None:
        task = loop.create_task(read_again())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    with contextlib.suppress(ValueError, RuntimeError, NotImplementedError, AttributeError):  # not the main thread
        loop.add_signal_handler(signal.SIGHUP, begin)
