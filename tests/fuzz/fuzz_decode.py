"""Coverage-guided fuzzing of the picture decoder: ``python tests/fuzz/fuzz_decode.py [libFuzzer options]``."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["runtime.decode", "PIL"]):
    from runtime.decode import Limits, open_picture
from runtime.errors import ImageError

LIMITS = Limits(max_bytes=1_000_000, max_pixels=1_000_000, max_side=5000)


def one(data: bytes) -> None:
    """Whatever the bytes, there are pixels or an ImageError with a code, of a JPEG at a reduced size as well."""
    try:
        file = open_picture(data, LIMITS)
        view = file.view()
        reduced = [file.view(factor) for factor in (2, 4, 8)] if file.may_shrink else []
    except ImageError as error:
        assert error.code
        assert str(error)
        return
    for part in (view, *reduced):
        rows, columns, channels = part.pixels.shape
        assert channels == 3
        assert (part.width, part.height) == (view.width, view.height)
        assert (columns, rows) == (-(-view.width // part.factor), -(-view.height // part.factor))
        assert view.width * view.height <= LIMITS.max_pixels


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
