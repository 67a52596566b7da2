"""Coverage-guided fuzzing of the picture decoder: ``python tests/fuzz/fuzz_decode.py [libFuzzer options]``."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["runtime.decode", "PIL"]):
    from runtime.decode import Limits, decode
from runtime.errors import ImageError

LIMITS = Limits(max_bytes=1_000_000, max_pixels=1_000_000, max_side=5000)


def one(data: bytes) -> None:
    """Whatever the bytes, there are pixels or an ImageError with a code."""
    try:
        image = decode(data, LIMITS)
    except ImageError as error:
        assert error.code
        assert str(error)
    else:
        assert image.ndim == 3
        assert image.shape[2] == 3
        assert image.shape[0] * image.shape[1] <= LIMITS.max_pixels


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
