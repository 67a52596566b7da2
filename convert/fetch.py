"""``python -m convert fetch``: models of the catalog into the models folder, repaired and checked."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from convert.errors import FetchError
from convert.sources import Advance, Fetcher, Weights
from convert.write import exclusive, write_model
from models.card import ModelCard, card_or_none
from models.catalog import CatalogEntry, Source
from models.store import is_intact, recorded_sha256

RECIPE = "1"
"""Raised whenever the repair writes something else for the same source, so that a fetch replaces older files."""

DOWNLOADS = ".downloads"

State = Literal["present", "written", "card renewed"]
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Fetched:
    """What happened to one model.

    Attributes:
        name: catalog name.
        path: the file.
        state: ``present`` (nothing done), ``written``, or ``card renewed``.
        sha256: of the file.
        next_step: what to run to make a model of raw weights; "" when the file is a model.
    """

    name: str
    path: Path
    state: State
    sha256: str
    next_step: str


@dataclass(frozen=True, slots=True)
class Options:
    """How to fetch.

    Attributes:
        offline: use nothing but this machine.
        force: fetch models that are there and intact, too.
        allow_unverified: take sources without sha256.
    """

    offline: bool = False
    force: bool = False
    allow_unverified: bool = False


def fetch(
    entries: Sequence[CatalogEntry],
    folder: Path,
    options: Options = Options(),
    report: Report = lambda _text: None,
    advance: Advance = lambda _name, _done, _total: None,
) -> list[Fetched]:
    """Make every entry present, intact and up to date in ``folder``; do nothing for those that are.

    Two processes take turns; an interrupted run leaves complete files only and can be run again.

    Args:
        entries: what to fetch.
        folder: the models folder.
        options: how.
        report: told each step in words.
        advance: told about downloads.

    Raises:
        ConvertError: a model cannot be had, repaired, proven or written; those before it are complete.
    """
    if not options.force:
        there = [_present(entry, folder) for entry in entries]
        if all(there):
            return [found for found in there if found]
    waiting = f"Another fetch is busy in {folder}; waiting for it."
    with exclusive(folder, lambda: report(waiting)), tempfile.TemporaryDirectory() as scratch:
        fetcher = Fetcher(Path(scratch), folder / DOWNLOADS, options.offline, options.allow_unverified, advance)
        done = [_fetch_one(entry, folder, fetcher, options.force, report) for entry in entries]
        _clear(folder / DOWNLOADS)
    return done


def _fetch_one(entry: CatalogEntry, folder: Path, fetcher: Fetcher, force: bool, report: Report) -> Fetched:
    found = None if force else _present(entry, folder) or _renew_card(entry, folder, report)
    if found:
        return found
    weights = _first_source(entry, fetcher, report)
    path = folder / entry.file
    if entry.card is None:
        return _fetched(entry, path, "written", write_model(path, weights.data))
    report(f"{entry.name}: repairing and comparing with the source")
    # Imported here: onnx and onnxruntime take most of a second, and a fetch with nothing to do needs neither.
    from convert.repair import make_model  # noqa: PLC0415

    card = replace(entry.card, origin=weights.name, origin_sha256=weights.sha256)
    data = make_model(weights.data, card, {"recipe": RECIPE})
    return _fetched(entry, path, "written", write_model(path, data))


def _first_source(entry: CatalogEntry, fetcher: Fetcher, report: Report) -> Weights:
    reasons = []
    for source in entry.sources:
        try:
            weights = fetcher.get(source)
        except FetchError as error:
            reasons.append(str(error))
            continue
        for reason in reasons:
            report(f"{entry.name}: {reason}")
        return weights
    listed = "".join(f"\n  - {reason}" for reason in reasons)
    raise FetchError(f"{entry.name} cannot be had:{listed}\n{_remedy(entry.sources)}")


def _remedy(sources: Sequence[Source]) -> str:
    places = [source.path for source in sources if hasattr(source, "path")]
    if places:
        return f"Put the file at {' or '.join(places)}, or run it again with a connection to the internet."
    return "Run it again with a connection to the package index."


def _present(entry: CatalogEntry, folder: Path) -> Fetched | None:
    """The model if it is there, intact, and as the catalog and the repair of today would write it."""
    path = folder / entry.file
    if not is_intact(path):
        return None
    if entry.card is not None:
        card = card_or_none(path)
        if card is None or _is_outdated(card, entry) or card != _renewed(card, entry.card):
            return None
    return _fetched(entry, path, "present", recorded_sha256(path) or "")


def _renew_card(entry: CatalogEntry, folder: Path, report: Report) -> Fetched | None:
    """Give a model whose network is up to date the card that the catalog holds today."""
    path = folder / entry.file
    card = card_or_none(path) if entry.card is not None and is_intact(path) else None
    if card is None or entry.card is None or _is_outdated(card, entry):
        return None
    report(f"{entry.name}: the catalog changed; renewing the card")
    from convert.repair import change_card  # noqa: PLC0415

    data = change_card(path.read_bytes(), _renewed(card, entry.card))
    return _fetched(entry, path, "card renewed", write_model(path, data))


def _is_outdated(card: ModelCard, entry: CatalogEntry) -> bool:
    known = {source.sha256 for source in entry.sources if source.sha256}
    return card.versions.get("recipe") != RECIPE or bool(known and card.origin_sha256 not in known)


def _renewed(card: ModelCard, template: ModelCard) -> ModelCard:
    return replace(
        template,
        origin=card.origin,
        origin_sha256=card.origin_sha256,
        versions=card.versions,
        parity=card.parity,
    )


def _fetched(entry: CatalogEntry, path: Path, state: State, sha256: str) -> Fetched:
    return Fetched(entry.name, path, state, sha256, entry.next_step.format(path=path))


def _clear(downloads: Path) -> None:
    """Remove complete downloads; what was extracted from them is in place."""
    if downloads.is_dir():
        for path in downloads.iterdir():
            path.unlink()
        downloads.rmdir()
