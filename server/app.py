"""The application, put together."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncGenerator, Callable

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.routing import Route

from matchers.breaker import CircuitBreaker
from matchers.dual import Searcher
from matchers.languages import Languages
from matchers.names import domain_name
from matchers.service import Stores
from models.settings import Settings
from runtime.engine import FaceEngine
from server.analyze import analyze
from server.backend import Backend
from server.domains import domains
from server.errors import EXPECTED, answer_error
from server.health import live, metrics, ready
from server.local import LocalOnly
from server.metrics import Metrics
from server.observe import Observe
from server.pages import index, openapi
from server.tokens import open_tokens
from server.work import WorkPool

ROUTES = (
    Route("/", index),
    Route("/analyze", analyze, methods=["POST"]),
    Route("/domains", domains),
    Route("/health/live", live),
    Route("/health/ready", ready),
    Route("/metrics", metrics),
    Route("/openapi.json", openapi),
)

_SEARCH_THREADS = 32
_WAITING = 64


def create_app(
    settings: Settings, engine: FaceEngine, stores: Stores, close: Callable[[], None] | None = None
) -> Starlette:
    """The service over an open engine and open stores.

    Args:
        close: called once when the application ends, after its last request, to close the stores.

    Raises:
        InvalidName: ``DEFAULT_DOMAIN`` is not admitted as a name.
    """
    backend = _backend(settings, engine, stores)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
        app.state.ready = True
        try:
            yield
        finally:
            app.state.ready = False
            await run_in_threadpool(_end, backend, close)

    app = Starlette(
        routes=ROUTES,
        middleware=[Middleware(Observe), *([] if backend.tokens else [Middleware(LocalOnly)])],
        exception_handlers=dict.fromkeys(EXPECTED, answer_error),
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.backend = backend
    app.state.ready = False
    return app


def _backend(settings: Settings, engine: FaceEngine, stores: Stores) -> Backend:
    threshold = settings.match_threshold if settings.match_threshold is not None else engine.embedder_card.threshold
    assert threshold is not None, "an embedder's card always has a threshold"
    pools = WorkPool("inference", os.cpu_count() or 2, _WAITING), WorkPool("search", _SEARCH_THREADS, _WAITING)
    measured = Metrics()
    for pool in pools:
        measured.watch(pool)
    return Backend(
        engine=engine,
        stores=stores,
        searcher=Searcher(stores.pkl, stores.pgvector, CircuitBreaker(), settings.pgvector_timeout),
        tokens=open_tokens(settings),
        metrics=measured,
        inference=pools[0],
        searches=pools[1],
        languages=Languages(),
        default_domain=domain_name(settings.default_domain),
        default_mode=settings.default_mode,
        threshold=threshold,
        top_k=settings.top_k,
    )


def _end(backend: Backend, close: Callable[[], None] | None) -> None:
    backend.inference.close()
    backend.searches.close()
    if close is not None:
        close()
