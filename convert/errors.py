"""Errors of fetching, repairing and converting models. Each ends a command with exit status 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

INSTALL = "Install what converting needs: pip install '.[cpu,convert]' (only where you convert, not where you serve)."


class ConvertError(Exception):
    """Base: what happened, to what, and what to do."""


class FetchError(ConvertError):
    """No source of a model could be had."""


class RepairError(ConvertError):
    """A source file is not the network that it should be, or cannot be repaired."""


class FacesError(ConvertError):
    """There are no pictures of faces to work with."""


class PrecisionError(ConvertError):
    """A network cannot be had in another precision, or loses too much by it; nothing is written.

    Attributes:
        figures: what was measured, ready for JSON; empty when nothing was.
    """

    def __init__(self, message: str, figures: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.figures = dict(figures or {})


class ParityError(ConvertError):
    """The repaired network does not give what its source gives; nothing is written."""


class WeightsError(ConvertError):
    """A file of weights is missing, damaged, or of another network."""
