"""The HTTP application: predict, tasks, health, metrics, and a page to try it on."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware

from lpt import __version__
from lpt.adapter import AdapterConfig
from lpt.classifier import Prediction
from lpt.data.text import text_problem
from lpt.errors import LptError
from lpt.many_tasks import MultiTaskClassifier
from lpt.serving.batcher import Batcher, BusyError, ClosedError
from lpt.serving.guard import Guard
from lpt.serving.limits import Limits
from lpt.serving.measures import Measures

PATHS = frozenset({"/", "/predict", "/tasks", "/health", "/metrics", "/openapi.json"})
SAFE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Asked(BaseModel):
    """What to predict."""

    text: str | tuple[str, str] | None = Field(None, description="A text, or the two texts of a pair.")
    texts: list[str | tuple[str, str]] | None = Field(None, description="Several of them, instead of `text`.")
    tasks: list[str] | None = Field(None, description="Names of tasks; without it, all.")


class Added(BaseModel):
    """An adapter to load."""

    path: str = Field(description="Its folder, within the one that the server was given as --adapters-root.")
    name: str | None = Field(None, description="Name of the task; without it, that which it was trained on.")


def make_app(
    load: Callable[[], MultiTaskClassifier],
    limits: Limits | None = None,
    token: str | None = None,
    root: Path | None = None,
    hosts: tuple[str, ...] = ("*",),
) -> FastAPI:
    """The application.

    Args:
        load: gives what answers; one thread alone loads and uses it.
        limits: of requests.
        token: that requests must bear; None: none.
        root: the folder that adapters may be added from; None: none are.
        hosts: names that requests may call the server by; `*` is any.
    """
    limits, measures = limits or Limits(), Measures()
    batcher = Batcher(lambda rows: tasks.predict_rows(list(rows)), limits.batch_rows, limits.waiting_rows)
    tasks = batcher.do(load)
    batcher.batches.append(measures.batch.observe)
    measures.waiting.set_function(lambda: batcher.waiting)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        batcher.close()

    app = FastAPI(
        title="lpt serve",
        version=__version__,
        description="Classify texts by adapters over one frozen language model.",
        docs_url=None,  # it would fetch its scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(Guard, limits=limits, token=token, measures=measures, paths=PATHS)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    _add_errors(app)
    _add_predict(app, tasks, limits, batcher, measures)
    _add_tasks(app, tasks, root, batcher)
    _add_looks(app, tasks, batcher, measures)
    return app


def _add_errors(app: FastAPI) -> None:
    """Give each kind of error its status."""

    def said(status: int, headers: dict[str, str] | None = None) -> Any:
        return lambda _, error: JSONResponse({"detail": str(error)}, status, headers)

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # without what was sent, which may be no JSON
        return JSONResponse({"detail": [{"loc": one["loc"], "msg": one["msg"]} for one in error.errors()]}, 422)

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(LptError, said(422))
    app.add_exception_handler(BusyError, said(429, {"Retry-After": "1"}))
    app.add_exception_handler(ClosedError, said(503, {"Retry-After": "5"}))


def _add_predict(
    app: FastAPI, tasks: MultiTaskClassifier, limits: Limits, batcher: Batcher, measures: Measures
) -> None:
    @app.post("/predict")
    async def predict(asked: Asked) -> dict[str, Any]:
        """Predict one text or several, for one task, several or all."""
        if (asked.text is None) == (asked.texts is None):
            raise HTTPException(422, "give either text or texts")
        texts = [asked.text] if asked.text is not None else asked.texts or []
        if len(texts) > limits.texts:
            raise HTTPException(413, f"{len(texts)} texts; send at most {limits.texts} at a time")
        parts = [part for text in texts for part in ([text] if isinstance(text, str) else text)]
        problem = next(filter(None, map(text_problem, parts)), None)  # here, so that it disturbs no other request
        if problem is not None:
            raise HTTPException(422, f"a text {problem}")
        longest = max(map(len, parts), default=0)
        if longest > limits.characters:
            raise HTTPException(413, f"a text of {longest:,} characters; send at most {limits.characters:,}")
        known = tasks.tasks
        names = list(known) if asked.tasks is None else list(dict.fromkeys(asked.tasks))
        unknown = [name for name in names if name not in known]
        if unknown:
            raise HTTPException(404, f"there is no task {unknown[0]!r} (there are: {', '.join(known)})")
        found = await batcher.predict([(name, text) for text in texts for name in names]) if texts and names else []
        for name in names:
            measures.rows.labels(name).inc(len(texts))
        answers = [
            {name: _answer(one) for name, one in zip(names, found[start : start + len(names)], strict=True)}
            for start in range(0, len(found), max(len(names), 1))
        ]
        return {"predictions": answers[0]} if asked.text is not None else {"predictions": answers}


def _answer(found: Prediction) -> dict[str, Any]:
    if found.value is not None:
        return {"value": found.value}
    return {
        "label": found.label,
        "confidence": found.probabilities[found.label],
        "probabilities": found.probabilities,
    }


def _add_tasks(app: FastAPI, tasks: MultiTaskClassifier, root: Path | None, batcher: Batcher) -> None:
    @app.get("/tasks")
    async def listed() -> dict[str, Any]:
        """The tasks, with their labels."""
        return {"tasks": {name: _described(config) for name, config in tasks.tasks.items()}}

    @app.post("/tasks", status_code=201)
    async def add(added: Added) -> dict[str, str]:
        """Load an adapter while the server runs."""
        folder = _within(root, added.path)
        if added.name is not None and added.name in tasks.tasks:
            raise HTTPException(409, f"there is a task {added.name!r} already")
        return {"name": await batcher.call(lambda: tasks.add(folder, added.name))}

    @app.delete("/tasks/{name:path}")
    async def remove(name: str) -> dict[str, str]:
        """Forget an adapter; its folder stays."""
        _within(root, ".")
        if name not in tasks.tasks:
            raise HTTPException(404, f"there is no task {name!r} (there are: {', '.join(tasks.tasks)})")
        await batcher.call(lambda: tasks.remove(name))
        return {"name": name}


def _described(config: AdapterConfig) -> dict[str, Any]:
    about: dict[str, Any] = {"labels": config.labels} if config.value_range is None else {"range": config.value_range}
    scores = config.training.get("metrics", {}).get(config.training.get("judged_on"), {})
    return about | {
        "pair": config.reading.b is not None,
        "column": config.reading.a,
        "method": config.method,
        "backbone": config.backbone,
        "scores": {name: value for name, value in scores.items() if name != "loss"},
    }


def _within(root: Path | None, path: str) -> Path:
    """The folder, if the server may load from there.

    Raises:
        HTTPException: 403.
    """
    if root is None:
        raise HTTPException(403, "tasks are added and removed where the server was started with --adapters-root")
    folder = (root / path).resolve()
    if not folder.is_relative_to(root.resolve()):
        raise HTTPException(403, f"{path!r} is not within --adapters-root")
    return folder


def _add_looks(app: FastAPI, tasks: MultiTaskClassifier, batcher: Batcher, measures: Measures) -> None:
    page = files("lpt.serving").joinpath("page.html").read_text(encoding="utf-8")

    @app.get("/health")
    async def health() -> Response:
        """Whether it answers."""
        state = "ending" if batcher.closed else "ok"
        content = {"status": state, "tasks": len(tasks.tasks), "waiting_rows": batcher.waiting}
        return JSONResponse(content, 503 if batcher.closed else 200)

    @app.get("/metrics")
    async def metrics() -> Response:
        """What was counted, for Prometheus."""
        return Response(measures.text(), media_type="text/plain; version=0.0.4")

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def index(_: Request) -> HTMLResponse:
        return HTMLResponse(page, headers=SAFE)
