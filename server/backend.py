"""Everything that the routes share, made in one place and handed over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from starlette.requests import Request

from matchers.dual import Searcher
from matchers.languages import Languages
from matchers.service import Stores
from models.settings import Mode
from runtime.engine import FaceEngine
from server.metrics import Metrics
from server.tokens import Tokens
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

    def mode(self, _domain: str) -> Mode:
        """How ``domain`` is searched."""
        return self.default_mode


def backend_of(request: Request) -> Backend:
    """The backend of the application that got ``request``."""
    return cast(Backend, request.app.state.backend)
