"""Everything that the routes share, made in one place and handed over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast

from starlette.requests import Request

from matchers.audit import AuditLog
from matchers.dual import PGVECTOR_FAILED, Searcher
from matchers.gates import Gates, gates_of
from matchers.languages import Languages
from matchers.modes import drawn
from matchers.names import domain_name
from matchers.preferences import PreferenceStore, default_threshold
from matchers.recording.recorder import Recorder
from matchers.recording.report import Judge, count_differences
from matchers.service import Stores
from models.settings import Mode, Settings
from runtime.engine import FaceEngine
from server.intake import Intake
from server.jobs import Jobs
from server.metrics import Metrics
from server.recent import Recent
from server.shell import Facts, Pages
from server.tokens import Right, Tokens, open_tokens
from server.work import WorkPool


@dataclass(frozen=True, slots=True)
class Backend:
    """What answers requests.

    Attributes:
        engine: picture to embeddings.
        stores: the galleries.
        searcher: searches them by mode.
        inference: threads for the engine.
        searches: threads for the galleries; apart, so that a slow database does not hold up pictures.
        writes: threads that change galleries; apart, since a change may wait for another one.
        intake: bounds what uploads take of the memory.
        languages: what answers and the page can be written in.
        pages: the page in each of them.
        default_domain: domain of requests that name none.
        default_mode: mode of domains for which none was set.
        default_threshold: threshold of domains for which none was set.
        preferences: what was set for single domains.
        audit: who set their modes.
        gates: what must hold before pgvector may answer alone.
        recorder: keeps the answers of dual mode.
        recent: answers that are kept for a moment.
        top_k: how many nearest faces an answer lists.
        upload_timeout: seconds that a client may take to send its picture.
        keep_thumbnails: whether a small picture of each enrolled face is kept.
        jobs: does long work in the background.
        images_dir: folder with one folder of pictures per domain.
    """

    engine: FaceEngine
    stores: Stores
    searcher: Searcher
    tokens: Tokens
    metrics: Metrics
    inference: WorkPool
    searches: WorkPool
    writes: WorkPool
    intake: Intake
    languages: Languages
    pages: Pages
    default_domain: str
    default_mode: Mode
    default_threshold: float
    preferences: PreferenceStore
    audit: AuditLog
    gates: Gates
    recorder: Recorder
    recent: Recent
    top_k: int
    upload_timeout: float
    keep_thumbnails: bool
    jobs: Jobs
    images_dir: Path | None

    def mode(self, domain: str) -> Mode:
        """How ``domain`` is to be searched.

        Raises:
            GalleryError: what is set for the domain cannot be read.
        """
        if self.stores.pgvector is None and not self.stores.pgvector_error:
            return "pkl_only"
        return self.preferences.get(domain).mode or self.default_mode

    def mode_of_request(self, domain: str) -> Mode:
        """How one request for ``domain`` is searched: ``dual`` for a share of them, where that was set.

        Raises:
            GalleryError: what is set for the domain cannot be read.
        """
        return drawn(self.mode(domain), self.preferences.get(domain).sample)

    def answering(self, domain: str) -> str:
        """What answers for ``domain`` say at present: its mode, or that pgvector failed.

        Raises:
            GalleryError: what is set for the domain cannot be read.
        """
        mode = self.mode(domain)
        failing = self.searcher.breaker.state != "closed" or self.stores.pgvector is None
        return PGVECTOR_FAILED if failing and mode != "pkl_only" else mode

    def judge(self) -> Judge:
        """Looks at the gates; how far the stores differ is counted every now and then only."""
        return Judge(
            self.stores,
            self.audit,
            self.engine.embedder_card.gallery_space,
            self.gates,
            self._differing,
        )

    def _differing(self, domain: str) -> int | None:
        forgotten = self.stores.comparisons.forgotten()
        return self.recent.get(("differences", domain), lambda: count_differences(self.stores, domain), forgotten)

    def threshold(self, domain: str) -> float:
        """Cosine distance up to which two faces of ``domain`` count as one person.

        Raises:
            GalleryError: what is set for the domain cannot be read.
        """
        own = self.preferences.get(domain).threshold(self.engine.embedder_card)
        return self.default_threshold if own is None else own

    def facts(self) -> Facts:
        """What the page is told before it asks."""
        return Facts(self.default_domain, self.default_threshold, bool(self.tokens), self.engine.limits.max_bytes)


class Changeable(TypedDict):
    """What of the backend may change while it serves."""

    tokens: Tokens
    default_domain: str
    default_mode: Mode
    default_threshold: float
    gates: Gates
    top_k: int
    upload_timeout: float


def changeable(settings: Settings, engine: FaceEngine) -> Changeable:
    """The part of the backend that comes from ``settings``.

    Raises:
        TokenFileError: a token cannot be read.
        InvalidName: ``DEFAULT_DOMAIN`` is not admitted as a name.
    """
    return {
        "tokens": open_tokens(settings),
        "default_domain": domain_name(settings.default_domain),
        "default_mode": settings.default_mode,
        "default_threshold": default_threshold(settings, engine.embedder_card),
        "gates": gates_of(settings),
        "top_k": settings.top_k,
        "upload_timeout": settings.upload_timeout,
    }


def backend_of(request: Request) -> Backend:
    """The backend of the application that got ``request``."""
    return cast(Backend, request.app.state.backend)


def enter_domain(request: Request, right: Right = "analyze") -> tuple[Backend, str]:
    """The backend, and the domain that the address of ``request`` names.

    Raises:
        ApiError: 401, 403 or 429, the caller may not; see ``Tokens.check``.
        InvalidName: the address names no domain.
    """
    backend = backend_of(request)
    caller = backend.tokens.check(request.headers.get("authorization"), right)
    request.state.caller = caller.name
    domain = domain_name(request.path_params["domain"])
    caller.enter(domain)
    return backend, domain
