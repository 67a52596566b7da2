"""What is set for one domain alone: how it is searched and when two faces count as one person.

One small JSON file per domain under ``DATA_DIR/domains``. A process sees what another one writes within a second.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from matchers.errors import GalleryError, StoreUnavailable
from matchers.files import Stamp, locked, remove_parts, stamp_of, written_atomically
from matchers.names import domain_name
from models.card import ModelCard
from models.errors import CardError
from models.settings import Mode, Settings

_CHECK_SECONDS = 0.5
# Domains without a file that are kept in mind; who may ask may name any.
_MOST_UNSET = 1000

_log = logging.getLogger("matchers.preferences")


@dataclass(frozen=True, slots=True)
class Preferences:
    """What was set for a domain.

    Attributes:
        mode: how it is searched; None: as the settings say.
        sample: share of requests that ``dual`` searches in both stores, 0 to 1.
        thresholds: cosine distance up to which two faces count as one person, by embedding space
            (:attr:`models.card.ModelCard.space`), since every model has distances of its own.
    """

    mode: Mode | None = None
    sample: Annotated[float, Field(ge=0, le=1)] = 1.0
    thresholds: Mapping[str, Annotated[float, Field(ge=0, le=2)]] = field(default_factory=dict)

    def threshold(self, embedder: ModelCard) -> float | None:
        """What was set for embeddings of this model; None when nothing was."""
        return self.thresholds.get(embedder.space)


_JSON = TypeAdapter(Preferences)
_NOTHING = Preferences()


@dataclass(frozen=True, slots=True)
class _Known:
    """What was read last, of which state of the file, and when that was last looked at (``time.monotonic``)."""

    preferences: Preferences
    stamp: Stamp | None
    checked: float


class PreferenceStore:
    """The preferences of all domains. Thread-safe; several processes may read and change them."""

    def __init__(self, root: Path) -> None:
        """``root``: folder of the files, made with the first one."""
        self.root = root
        self._known: dict[str, _Known] = {}

    def path(self, domain: str) -> Path:
        """The file of a domain, whether it is there or not."""
        return self.root / f"{domain_name(domain)}.json"

    def get(self, domain: str) -> Preferences:
        """What is set for ``domain``; the defaults when nothing is. Costs no more than a look at a clock, mostly.

        A file that cannot be read any more is logged, and what it said before holds on.

        Raises:
            GalleryError: the file cannot be read and never could; the message names it.
        """
        known = self._known.get(domain)
        now = time.monotonic()
        if known is not None and now - known.checked < _CHECK_SECONDS:
            return known.preferences
        path = self.path(domain)
        try:
            stamp = stamp_of(path)
            if known is not None and stamp == known.stamp:
                read = known.preferences
            else:
                read = _NOTHING if stamp is None else _read(path)
        except GalleryError as error:
            if known is None:
                raise
            _log.error("%s; what it said before holds on", error)
            stamp, read = known.stamp, known.preferences
        if known is None and len(self._known) >= _MOST_UNSET:
            self._forget_unset()
        self._known[domain] = _Known(read, stamp, now)
        return read

    def change(self, domain: str, change: Callable[[Preferences], Preferences]) -> tuple[Preferences, Preferences]:
        """Replace what is set by ``change(what is set)``; gives both, before and after. One change at a time.

        Raises:
            GalleryError: what is set cannot be read; nothing was changed.
            StoreUnavailable: the file cannot be written; nothing was changed.
        """
        path = self.path(domain)
        with self._locked(path):
            before = _NOTHING if stamp_of(path) is None else _read(path)
            after = change(before)
            with written_atomically(path) as file:
                file.write(_JSON.dump_json(after, indent=2) + b"\n")
            self._known[domain] = _Known(after, stamp_of(path), time.monotonic())
        return before, after

    def set_threshold(self, domain: str, embedder: ModelCard, threshold: float) -> float | None:
        """Set the cosine distance up to which two faces of ``domain`` count as one person; gives what was set before.

        Raises:
            GalleryError, StoreUnavailable: as :meth:`change`.
        """
        before, _ = self.change(
            domain, lambda now: replace(now, thresholds={**now.thresholds, embedder.space: threshold})
        )
        return before.threshold(embedder)

    def drop(self, domain: str) -> None:
        """Forget what is set for ``domain``.

        Raises:
            StoreUnavailable: the file cannot be deleted.
        """
        path = self.path(domain)
        if stamp_of(path) is not None:
            with self._locked(path):
                path.unlink(missing_ok=True)
        self._known.pop(domain, None)

    def _forget_unset(self) -> None:
        for domain, known in list(self._known.items()):
            if known.stamp is None:
                self._known.pop(domain, None)

    @contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with locked(self.root / ".lock"):
                remove_parts(path)
                yield
        except OSError as error:
            raise StoreUnavailable(f"{path} cannot be written: {error.strerror}") from error


def open_preferences(settings: Settings) -> PreferenceStore:
    """The preferences under ``DATA_DIR/domains``."""
    return PreferenceStore(settings.data_dir / "domains")


def default_threshold(settings: Settings, embedder: ModelCard) -> float:
    """Threshold of domains for which none was set: ``MATCH_THRESHOLD``, else the embedder's card's.

    Raises:
        CardError: there is neither.
    """
    threshold = settings.match_threshold if settings.match_threshold is not None else embedder.threshold
    if threshold is None:
        raise CardError(f"The card of {embedder.name} has no threshold. Set MATCH_THRESHOLD.")
    return threshold


def domain_threshold(settings: Settings, embedder: ModelCard, domain: str) -> float:
    """Threshold of ``domain``: what was set for it, else the default.

    Raises:
        CardError: there is none.
        GalleryError: what is set for the domain cannot be read.
    """
    own = open_preferences(settings).get(domain).threshold(embedder)
    return default_threshold(settings, embedder) if own is None else own


def _read(path: Path) -> Preferences:
    try:
        return _JSON.validate_json(path.read_bytes())
    except OSError as error:
        raise GalleryError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise GalleryError(f"{path} does not hold a domain's preferences ({wrong}): mend or delete it") from error
