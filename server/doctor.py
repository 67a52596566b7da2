"""``python -m server doctor``: is everything there that serving needs, and if not, what to do."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from matchers.errors import MatcherError
from matchers.service import Stores, open_stores
from models.card import Task
from models.errors import ModelError
from models.settings import Settings
from models.store import ModelStore
from models.verify import verify_found
from runtime.engine import FaceEngine, open_engine
from runtime.errors import RuntimeFault
from server.tokens import TokenFileError, tokens_asked_for

Status = Literal["ok", "warning", "problem"]

_DISK_WARNING = 2 * 2**30


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        part: what was looked at.
        status: ``problem``: the service cannot work as the settings say.
        detail: what was seen, and for anything but ``ok`` what to do.
    """

    part: str
    status: Status
    detail: str


def examine(settings: Settings) -> Iterator[Finding]:
    """Check folders, tokens, models, execution provider, PKL galleries and PostgreSQL, in this order."""
    yield from _at_rest(settings)
    try:
        engine = open_engine(settings)
    except (ModelError, RuntimeFault) as error:
        yield Finding("models" if isinstance(error, ModelError) else "execution provider", "problem", str(error))
        return
    yield _provider(engine, settings)
    with open_stores(settings, engine.embedder_card, engine.detector_card.name) as stores:
        yield from _stores(settings, stores)


def examine_running(settings: Settings, engine: FaceEngine, stores: Stores) -> Iterator[Finding]:
    """The same checks in a server that runs, on what it has open."""
    yield from _at_rest(settings)
    yield _provider(engine, settings)
    yield from _stores(settings, stores)


def _at_rest(settings: Settings) -> Iterator[Finding]:
    yield _folder("data folder", settings.data_dir)
    yield _disk(settings.data_dir)
    yield _tokens(settings)
    yield from _models(settings)


def _folder(part: str, folder: Path) -> Finding:
    existing = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        advice = f"Give this user the right to write there, or set another {part.split(maxsplit=1)[0].upper()}_DIR."
        return Finding(part, "problem", f"{existing} is no folder that this user can write. {advice}")
    galleries = folder / "galleries"
    if galleries.exists() and galleries.stat().st_mode & 0o007:
        advice = f"It holds personal data; run `chmod o-rwx {galleries}`."
        return Finding(part, "warning", f"{galleries} is open to every user of this machine. {advice}")
    return Finding(part, "ok", f"{folder.resolve()} can be written")


def _disk(folder: Path) -> Finding:
    existing = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    detail = f"{free / 2**30:.1f} GiB are free"
    if free < _DISK_WARNING:
        return Finding("disk", "warning", f"{detail}; below 2 GiB PostgreSQL may stop. Free some space.")
    return Finding("disk", "ok", detail)


def _tokens(settings: Settings) -> Finding:
    try:
        asked_for = tokens_asked_for(settings)
    except TokenFileError as error:
        return Finding("tokens", "problem", str(error))
    if not asked_for:
        return Finding("tokens", "ok", "none: the server answers this machine only")
    return Finding("tokens", "ok", "clients are asked for one")


def _models(settings: Settings) -> Iterator[Finding]:
    store = ModelStore(settings.models_path)
    roles: tuple[tuple[str, str, Task], ...] = (
        ("detector", settings.detector, "detection"),
        ("embedder", settings.embedder, "embedding"),
    )
    for role, reference, task in roles:
        part = f"{role} {reference}"
        try:
            model = store.find(reference, task)
        except ModelError as error:
            yield Finding(part, "problem", str(error))
            continue
        problems = verify_found(model)
        if problems:
            yield Finding(part, "problem", "; ".join(problems) + ". `python -m convert fetch --force` makes it anew.")
        else:
            yield Finding(
                part, "ok", f"built in: {model.card.origin}" if model.path is None else f"{model.path} is intact"
            )


def _provider(engine: FaceEngine, settings: Settings) -> Finding:
    detail = f"{engine.provider}, {engine.precision} (EXECUTION_PROVIDER={settings.execution_provider})"
    return Finding("execution provider", "ok", detail)


def _stores(settings: Settings, stores: Stores) -> Iterator[Finding]:
    yield _guarded("PKL galleries", lambda: _count_pkl(stores))
    if not settings.vector_db_enabled:
        yield Finding("PostgreSQL", "ok", "off: VECTOR_DB_ENABLED is false")
    else:
        yield _guarded("PostgreSQL", lambda: _count_pgvector(stores))


def _guarded(part: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(part, "ok", look())
    except MatcherError as error:
        return Finding(part, "problem", str(error))


def _count_pkl(stores: Stores) -> str:
    counts = {domain: stores.pkl.count(domain) for domain in stores.pkl.domains()}
    return ", ".join(f"{domain}: {count} faces" for domain, count in counts.items()) or "none yet"


def _count_pgvector(stores: Stores) -> str:
    store = stores.pgvector
    if store is None:
        raise MatcherError(stores.pgvector_error or "pgvector is not open")
    store.ping()
    counts = {domain: store.count(domain) for domain in store.domains()}
    return "answers; " + (", ".join(f"{domain}: {count} faces" for domain, count in counts.items()) or "no faces yet")
