"""Keeps every answer of dual mode without holding up a request: in PostgreSQL, or on the disk while that is away."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from matchers.base import Match
from matchers.dual import Outcome
from matchers.errors import MatcherError, StoreUnavailable
from matchers.reasons import Whereabouts, disagree, reason, suspects
from matchers.recording.log import ComparisonLog
from matchers.recording.record import Record, SeenFace
from matchers.service import Stores

_FLUSH_SECONDS = 0.5
_AWAY_SECONDS = 2.0
_PRUNE_SECONDS = 600.0
_BATCH = 500

_log = logging.getLogger("matchers.recording")


@dataclass(frozen=True, slots=True)
class _Heard:
    at: float
    domain: str
    threshold: float
    outcome: Outcome


class Recorder:
    """Takes outcomes from any thread and keeps them in the background, in a thread of its own.

    At most ``room`` outcomes wait in memory; what comes on top is counted in ``dropped`` and let go.
    """

    def __init__(self, stores: Stores, model: str, room: int = 5000) -> None:
        """``model``: the embedding space of the stores."""
        self._stores = stores
        self._log: ComparisonLog = stores.comparisons
        self._model = model
        self._room = room
        self._heard: deque[_Heard] = deque()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._away_until = 0.0
        self._prune_at = time.monotonic() + _FLUSH_SECONDS
        self._told = ""
        self.dropped = 0
        self.written = 0

    @property
    def waiting(self) -> int:
        """Outcomes in memory."""
        return len(self._heard)

    def record(self, outcome: Outcome, domain: str, threshold: float, at: float) -> None:
        """Keep what was found, if both stores were to be searched and there was a face. Returns at once.

        Args:
            threshold: cosine distance up to which two faces counted as one person.
            at: when the search began, seconds since 1970.
        """
        if not outcome.compared or not (outcome.pkl or outcome.pgvector):
            return
        if len(self._heard) >= self._room:
            self.dropped += 1
            return
        self._heard.append(_Heard(at, domain, threshold, outcome))

    def start(self) -> None:
        """Begin to write."""
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what waits, and end."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()

    def flush(self) -> None:
        """Write what waits in memory, now."""
        while self._heard:
            heard = [self._heard.popleft() for _ in range(min(_BATCH, len(self._heard)))]
            try:
                self._keep(self._records(heard))
            except StoreUnavailable as error:
                self.dropped += len(heard)
                _log.error("%d comparisons are lost: %s", len(heard), error)

    def _run(self) -> None:
        while not self._stop.wait(_FLUSH_SECONDS):
            try:
                self.flush()
                self._catch_up()
            except Exception:
                # Comparisons are no reason to end: the next ones may do.
                _log.exception("comparisons could not be recorded")

    def _keep(self, records: Sequence[Record]) -> None:
        if time.monotonic() >= self._away_until:
            try:
                self._log.write(records)
                self.written += len(records)
                return
            except StoreUnavailable as error:
                self._leave_alone(error)
        lost = self._log.spool.add(records)
        self.written += len(records) - lost
        self.dropped += lost
        if lost:
            self._tell(f"{self._log.spool.root} is full, comparisons are lost until PostgreSQL is back")

    def _catch_up(self) -> None:
        """Bring what waits on the disk to PostgreSQL, and prune, when it is there."""
        now = time.monotonic()
        if now < self._away_until:
            return
        try:
            while self._log.replay() and not self._stop.is_set():
                self._tell("")
            if now >= self._prune_at:
                self._prune_at = now + _PRUNE_SECONDS
                self._log.prune()
        except StoreUnavailable as error:
            self._leave_alone(error)

    def _leave_alone(self, error: StoreUnavailable) -> None:
        self._away_until = time.monotonic() + _AWAY_SECONDS
        self._tell(f"comparisons wait in {self._log.spool.root}: {error}")

    def _tell(self, text: str) -> None:
        if text and text != self._told:
            _log.warning("%s", text)
        self._told = text

    def _records(self, heard: Sequence[_Heard]) -> list[Record]:
        whereabouts = _Whereabouts(self._stores)
        return [
            Record(
                request=secrets.randbits(63),
                at=one.at,
                domain=one.domain,
                model=self._model,
                threshold=one.threshold,
                pkl_ms=one.outcome.timing_ms.get("search_pkl"),
                pgvector_ms=one.outcome.timing_ms.get("search_pgvector"),
                error=one.outcome.error,
                faces=_faces(one, whereabouts.of),
            )
            for one in heard
        ]


class _Whereabouts:
    """Which of the faces on which the stores differ lies where; asked once for each batch."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._known: dict[tuple[str, str], tuple[bool, bool]] = {}
        self._indexed: dict[str, bool] = {}

    def of(self, domain: str, keys: Collection[tuple[str, str]]) -> Whereabouts | None:
        """None when a store does not answer."""
        pgvector = self._stores.pgvector
        if pgvector is None:
            return None
        try:
            unknown = sorted({source for _, source in keys if (domain, source) not in self._known})
            if unknown:
                ours, theirs = self._stores.pkl.inventory(domain), pgvector.holding(domain, unknown)
                self._known.update({(domain, source): (source in ours, source in theirs) for source in unknown})
            if domain not in self._indexed:
                self._indexed[domain] = domain in pgvector.domains() and pgvector.indexed(domain)
        except MatcherError as error:
            _log.debug("why the stores disagree cannot be told: %s", error)
            return None
        in_pkl, in_pgvector = (
            frozenset(key for key in keys if self._known[domain, key[1]][number]) for number in (0, 1)
        )
        return Whereabouts(in_pkl, in_pgvector, self._indexed[domain])


def _faces(
    heard: _Heard, whereabouts: Callable[[str, Collection[tuple[str, str]]], Whereabouts | None]
) -> tuple[SeenFace, ...]:
    outcome = heard.outcome
    count = len(outcome.pkl or outcome.pgvector or ())
    faces = []
    for number in range(count):
        pkl = _plain(outcome.pkl[number]) if outcome.pkl is not None else ()
        pgvector = _plain(outcome.pgvector[number]) if outcome.pgvector is not None else ()
        comparison = outcome.comparisons[number] if outcome.comparisons is not None else None
        why = None
        if comparison is not None and disagree(pkl, pgvector, heard.threshold):
            where = whereabouts(heard.domain, suspects(pkl, pgvector))
            why = "unknown" if where is None else reason(pkl, pgvector, heard.threshold, where)
        faces.append(SeenFace(pkl, pgvector, comparison, why))
    return tuple(faces)


def _plain(matches: Sequence[Match]) -> tuple[Match, ...]:
    """With names as PostgreSQL can hold them."""
    return tuple(Match(_text(match.person), match.distance, _text(match.source)) for match in matches)


def _text(text: str) -> str:
    if text.isascii():
        return text.replace("\0", "?")
    return text.encode("utf-8", "replace").decode().replace("\0", "?")
