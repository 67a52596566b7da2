"""Coverage-guided fuzzing of the gallery reader: ``python tests/fuzz/fuzz_gallery.py [libFuzzer options]``."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["matchers.pickles", "matchers.records"]):
    from matchers.records import read_gallery
from matchers.errors import GalleryError

FOLDER = tempfile.TemporaryDirectory()
FILE = Path(FOLDER.name, "ds_model_sface_detector_retinaface_aligned_normalization_base_expand_0.pkl")


def forbidden(*_arguments: object, **_options: object) -> None:
    raise AssertionError("a gallery file ran a command")


def one(data: bytes) -> None:
    """Whatever the bytes, there are faces or a GalleryError, and nothing runs."""
    FILE.write_bytes(data)
    try:
        gallery = read_gallery(FILE)
    except GalleryError as error:
        assert str(error)
    else:
        assert all(face.embedding.ndim == 1 for face in gallery.faces)


if __name__ == "__main__":
    os.system = subprocess.Popen.__init__ = forbidden  # type: ignore[assignment,method-assign]
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
