"""Coverage-guided fuzzing of the gallery reader: ``python tests/fuzz/fuzz_gallery.py [libFuzzer options]``."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import atheris

with atheris.instrument_imports(include=["matchers.pickles", "matchers.records", "matchers.npz"]):
    from matchers.formats import read_records
    from matchers.records import gallery_of
from matchers.errors import GalleryError


def forbidden(*_arguments: object, **_options: object) -> None:
    raise AssertionError("a gallery file ran a command")


def one(data: bytes) -> None:
    """Whatever the bytes, there are faces or a GalleryError, and nothing runs."""
    try:
        gallery = gallery_of(read_records(io.BytesIO(data), "npz" if data.startswith(b"PK") else "pkl"))
    except GalleryError as error:
        assert str(error)
    else:
        assert all(face.embedding.ndim == 1 for face in gallery.faces)


if __name__ == "__main__":
    os.system = subprocess.Popen.__init__ = forbidden  # type: ignore[assignment,method-assign]
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
