"""The application, put together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.routing import Route

from matchers.audit import open_audit
from matchers.breaker import CircuitBreaker
from matchers.dual import Searcher
from matchers.languages import Languages
from matchers.preferences import open_preferences
from matchers.recording.recorder import Recorder
from matchers.service import Stores
from models.settings import Settings
from runtime.cores import core_count
from runtime.engine import FaceEngine
from server.analyze import analyze
from server.backend import Backend, changeable
from server.background import kept_up
from server.comparisons import comparisons
from server.domains import Domain, domains
from server.errors import EXPECTED, answer_error
from server.filling import job_events, show_job, start_import, start_sync
from server.healing import heal
from server.health import live, metrics, ready
from server.indexing import keep_indexed
from server.intake import Intake
from server.jobs import Jobs
from server.local import LocalOnly
from server.mending import list_differences, mend
from server.metrics import Metrics
from server.modes import DomainMode, mode_history
from server.observe import Observe
from server.pages import PAGES, openapi
from server.people import Face, Person, people, thumbnail
from server.recent import Recent
from server.reload import Reloader, reload
from server.shell import Pages
from server.signin import CookieSession, me, session
from server.status import Inspector, status
from server.wayback import watch_pgvector
from server.work import WorkPool

ROUTES = (
    Route("/analyze", analyze, methods=["POST"]),
    Route("/domains", domains),
    Route("/domains/{domain}", Domain),
    Route("/domains/{domain}/comparisons", comparisons),
    Route("/domains/{domain}/differences", list_differences),
    Route("/domains/{domain}/mode", DomainMode),
    Route("/domains/{domain}/mode/history", mode_history),
    Route("/domains/{domain}/import", start_import, methods=["POST"]),
    Route("/domains/{domain}/people", people),
    Route("/domains/{domain}/people/{person}", Person),
    Route("/domains/{domain}/people/{person}/faces/{face}", Face),
    Route("/domains/{domain}/people/{person}/faces/{face}/thumbnail", thumbnail),
    Route("/domains/{domain}/repair", mend, methods=["POST"]),
    Route("/domains/{domain}/sync", start_sync, methods=["POST"]),
    Route("/health/live", live),
    Route("/health/ready", ready),
    Route("/metrics", metrics),
    Route("/jobs/{job}", show_job),
    Route("/jobs/{job}/events", job_events),
    Route("/me", me),
    Route("/openapi.json", openapi),
    Route("/reload", reload, methods=["POST"]),
    Route("/session", session, methods=["POST", "DELETE"]),
    Route("/status", status),
)

_SEARCH_THREADS = 32
_WRITE_THREADS = 8
_WAITING = 128
# Of all uploads that are under way or wait together.
_UPLOAD_BYTES = 512 * 2**20
_BEAT_SECONDS = 2.0


def create_app(
    settings: Settings,
    engine: FaceEngine,
    stores: Stores,
    close: Callable[[], None] | None = None,
    reread: Callable[[], Settings] | None = None,
) -> Starlette:
    """The service over an open engine and open stores.

    Args:
        close: called once when the application ends, after its last request, to close the stores.
        reread: reads the settings anew for a reload; default: they stay as they are.

    Raises:
        InvalidName: ``DEFAULT_DOMAIN`` is not admitted as a name.
    """
    backend = _backend(settings, engine, stores)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
        app.state.ready = True
        backend.recorder.start()
        work: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "looking for new settings": partial(app.state.reloader.watch, app),
            "telling figures": partial(_beat, backend.metrics),
            "finishing changes": partial(heal, backend.stores, backend.writes),
            "watching pgvector": partial(watch_pgvector, lambda: app.state.backend),
            "indexing": partial(keep_indexed, lambda: app.state.backend),
        }
        tasks = [asyncio.create_task(kept_up(name, one)) for name, one in work.items()]
        try:
            yield
        finally:
            app.state.ready = False
            for task in tasks:
                task.cancel()
            await run_in_threadpool(_end, backend, close)

    app = Starlette(
        routes=[*ROUTES, *PAGES],
        middleware=[Middleware(Observe), Middleware(LocalOnly), Middleware(CookieSession)],
        exception_handlers=dict.fromkeys(EXPECTED, answer_error),
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.backend = backend
    app.state.inspector = Inspector(settings, engine, stores)
    app.state.reloader = Reloader(settings, reread or (lambda: settings))
    app.state.ready = False
    return app


def _backend(settings: Settings, engine: FaceEngine, stores: Stores) -> Backend:
    pools = (
        WorkPool("inference", max(2, core_count()), _WAITING),
        WorkPool("search", _SEARCH_THREADS, _WAITING),
        WorkPool("write", _WRITE_THREADS, _WAITING),
    )
    searcher = Searcher(
        stores.pkl, stores.pgvector, CircuitBreaker(settings.pgvector_failures), settings.pgvector_timeout
    )
    languages = Languages()
    recorder = Recorder(stores, engine.embedder_card.gallery_space)
    measured = Metrics()
    measured.watch_engine(engine)
    measured.watch_breaker(searcher.breaker)
    measured.watch_recorder(recorder)
    for pool in pools:
        measured.watch_pool(pool)
    if stores.pgvector is not None:
        measured.watch_connections(stores.pgvector)
    return Backend(
        engine=engine,
        stores=stores,
        searcher=searcher,
        metrics=measured,
        inference=pools[0],
        searches=pools[1],
        writes=pools[2],
        intake=Intake(_UPLOAD_BYTES),
        languages=languages,
        pages=Pages(languages),
        keep_thumbnails=settings.keep_thumbnails,
        jobs=Jobs(stores.jobs),
        images_dir=settings.images_dir,
        preferences=open_preferences(settings),
        audit=open_audit(settings),
        recorder=recorder,
        recent=Recent(),
        **changeable(settings, engine),
    )


async def _beat(measured: Metrics) -> None:
    """Keep the gauges fresh for the other workers, each of which tells the sum of all."""
    while True:
        measured.read()
        await asyncio.sleep(_BEAT_SECONDS)


def _end(backend: Backend, close: Callable[[], None] | None) -> None:
    """Close what the application opened; what fails keeps nothing after it open."""
    with contextlib.ExitStack() as stack:
        if close is not None:
            stack.callback(close)
        stack.callback(backend.recorder.close)
        for pool in (backend.writes, backend.searches, backend.inference):
            stack.callback(pool.close)
        stack.callback(backend.jobs.close)
