"""DeepFace's ``.parquet`` and ``.feather`` galleries, read by pyarrow in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from typing import IO, Final, Literal

from matchers.errors import GalleryError, GalleryFileError, StoreUnavailable
from matchers.npz import read_npz
from matchers.records import Records

NO_PYARROW, OTHER, DAMAGED, NO_ROOM = 3, 4, 5, 6
"""Exit statuses of ``matchers.arrow_child``."""

_SECONDS: Final = 60.0
_SECONDS_PER_BYTE: Final = 1e-6


class NoPyarrow(GalleryFileError):
    """The package that reads these files is not installed."""


def check_pyarrow() -> None:
    """Make sure that pyarrow is installed.

    Raises:
        NoPyarrow: it is not; the message says what to install.
    """
    if find_spec("pyarrow") is None:
        raise NoPyarrow(
            "Parquet and Feather galleries need the package pyarrow, which is not installed: `pip install pyarrow` in "
            "this service's environment. DeepFace's .npz and .pkl need nothing more."
        )


def read_arrow(file: IO[bytes], kind: Literal["parquet", "feather"]) -> Records:
    """The records of a Parquet or Feather file.

    A hostile file can at most end the process that reads it; what that process hands over is read as a ``.npz``.

    Raises:
        NoPyarrow: the package is not installed.
        GalleryError: the file is damaged or hostile, or holds other columns than DeepFace's.
        StoreUnavailable: the folder for temporary files takes no copy of it.
    """
    check_pyarrow()
    file.seek(0)
    # What was read is kept in Python: its own seek leaves the descriptor, which the other process gets, where it was.
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    size = os.fstat(file.fileno()).st_size
    environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as result:
        try:
            done = subprocess.run(  # noqa: S603
                [sys.executable, "-m", "matchers.arrow_child", kind],
                stdin=file,
                stdout=result,
                stderr=subprocess.PIPE,
                env=environment,
                timeout=_SECONDS + _SECONDS_PER_BYTE * size,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise GalleryError("it takes far longer to read than its size explains") from error
        if done.returncode == NO_PYARROW:
            check_pyarrow()
        if done.returncode == OTHER:
            raise GalleryError(done.stderr.decode("utf-8", "replace").strip()[-500:])
        if done.returncode == NO_ROOM:
            raise StoreUnavailable(
                "the folder for temporary files takes no copy of the gallery file: make room there, or let TMPDIR name "
                "another folder"
            )
        if done.returncode:
            raise GalleryError("it is damaged, or needs far more memory than its size explains")
        result.seek(0)
        return read_npz(result)
