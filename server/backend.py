"""Everything that the routes share, made in one place and handed over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict, cast

from starlette.requests import Request

from matchers.dual import Searcher
from matchers.languages import Languages
from matchers.names import domain_name
from matchers.service import Stores
from models.settings import Mode, Settings
from runtime.engine import FaceEngine
from server.metrics import Metrics
from server.tokens import Tokens, open_tokens
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
        languages: what answers and the page can be written in.
        default_domain: domain of requests that name none.
        default_mode: mode of a domain.
        threshold: cosine distance up to which two faces count as one person.
        top_k: how many nearest faces an answer lists.
        upload_timeout: seconds that a client may take to send its picture.
    """

    engine: FaceEngine
    stores: Stores
    searcher: Searcher
    tokens: Tokens
    metrics: Metrics
    inference: WorkPool
    searches: WorkPool
    languages: Languages
    default_domain: str
    default_mode: Mode
    threshold: float
    top_k: int
    upload_timeout: float

    def mode(self, _domain: str) -> Mode:
        """How ``domain`` is searched."""
        return self.default_mode


class Changeable(TypedDict):
    """What of the backend may change while it serves."""

    tokens: Tokens
    default_domain: str
    default_mode: Mode
    threshold: float
    top_k: int
    upload_timeout: float


def changeable(settings: Settings, engine: FaceEngine) -> Changeable:
    """The part of the backend that comes from ``settings``.

    Raises:
        TokenFileError: a token cannot be read.
        InvalidName: ``DEFAULT_DOMAIN`` is not admitted as a name.
    """
    threshold = settings.match_threshold if settings.match_threshold is not None else engine.embedder_card.threshold
    assert threshold is not None, "an embedder's card always has a threshold"
    return {
        "tokens": open_tokens(settings),
        "default_domain": domain_name(settings.default_domain),
        "default_mode": settings.default_mode,
        "threshold": threshold,
        "top_k": settings.top_k,
        "upload_timeout": settings.upload_timeout,
    }


def backend_of(request: Request) -> Backend:
    """The backend of the application that got ``request``."""
    return cast(Backend, request.app.state.backend)
