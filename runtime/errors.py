"""Errors of the runtime."""

from __future__ import annotations

from typing import Literal

ImageErrorCode = Literal["image_empty", "image_too_large", "image_unreadable", "unsupported_format"]


class RuntimeFault(Exception):
    """Base of everything that the runtime raises on purpose."""


class ImageError(RuntimeFault):
    """A picture cannot be used.

    Attributes:
        code: machine-readable reason.
    """

    def __init__(self, code: ImageErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class ProviderError(RuntimeFault):
    """The execution provider that was asked for cannot be loaded; the message says what to install."""
