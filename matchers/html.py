"""A report as one HTML file that asks nothing of any network."""

from __future__ import annotations

import base64
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matchers.errors import MatcherError
from matchers.files import written_atomically

PACKAGES = ("jinja2", "matplotlib")


class ReportError(MatcherError):
    """A report cannot be written."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One figure at the top: what it is, its value, and what to know about it."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text; ``bad`` are the numbers of rows to mark. Numbers stand to the right from the second column on."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    bad: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot of :mod:`matchers.plots` with its heading and what it shows."""

    title: str
    svg: str
    text: str


@dataclass(frozen=True, slots=True)
class Card:
    """One face: its picture as JPEG bytes (None: there is none), a heading, a sentence and what each store says."""

    jpeg: bytes | None
    title: str
    text: str
    lists: Sequence[tuple[str, Sequence[str]]] = ()

    @property
    def picture(self) -> str:
        """The picture as a ``data:`` address, "" without one."""
        return "" if self.jpeg is None else "data:image/jpeg;base64," + base64.b64encode(self.jpeg).decode()


@dataclass(frozen=True, slots=True)
class Section:
    """A chapter; ``folded`` are long lists that open on a click: their heading and their lines."""

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()
    cards: Sequence[Card] = ()
    folded: Sequence[tuple[str, Sequence[str]]] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A report.

    Attributes:
        title: heading of the page.
        lede: what was measured on what, in a sentence.
        made: when.
        good: whether the verdict is good; None: there is none.
        verdict: it in words.
        personal: what personal data the page holds.
    """

    title: str
    lede: str
    made: str
    good: bool | None
    verdict: str
    personal: str
    facts: Sequence[Fact] = ()
    sections: Sequence[Section] = field(default_factory=tuple)


def render(page: Page) -> str:
    """The page as HTML. All text is escaped; only plots, which :mod:`matchers.plots` made, are taken as they are."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415

    loader = PackageLoader("matchers", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html").render(page=page)


def prepare(folder: Path) -> None:
    """Make the folder of a report, for its owner alone; one that is there already keeps its rights.

    To be called before the work whose result shall be written.

    Raises:
        ReportError: the folder cannot be made, or the packages for reports are not installed.
    """
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise ReportError(f"Reports need {' and '.join(missing)}. Install them: pip install -e '.[report]'")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(f"The folder {folder} cannot be made: {error.strerror}. Name another one.") from error


def write(folder: Path, page: Page, data: Mapping[str, Any]) -> tuple[Path, Path]:
    """``report.html`` and ``report.json`` in ``folder``, readable by their owner alone; gives both paths.

    Raises:
        ReportError: a file cannot be written.
    """
    paths = folder / "report.html", folder / "report.json"
    texts = render(page), json.dumps(data, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    for path, text in zip(paths, texts, strict=True):
        try:
            with written_atomically(path) as file:
                file.write(text.encode())
        except OSError as error:
            raise ReportError(f"{path} cannot be written: {error.strerror}.") from error
    return paths
