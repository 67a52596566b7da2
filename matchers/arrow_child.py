"""Turn a Parquet or Feather gallery on standard input into a ``.npz`` on standard output; run by ``matchers.arrow``.

A process of its own, with little memory: Arrow's readers are written in C++ and trust much of what a file says.
"""

from __future__ import annotations

import errno
import os
import resource
import sys
from typing import Any, Final

import numpy as np

from matchers.arrow import DAMAGED, NO_PYARROW, NO_ROOM, OTHER
from models.commandline import look_away

_TEXTS: Final = ("identity", "hash")
_PIXELS: Final = ("target_x", "target_y", "target_w", "target_h")
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_MAX_TEXT: Final = 4096
# What Python, numpy and Arrow need for themselves, and how many times the file's size its columns may need.
_BASE_BYTES: Final = 200 * 2**20
_PER_BYTE: Final = 10


class _Other(Exception):
    pass


def main(kind: str) -> int:
    """Convert; the exit status is one of those that ``matchers.arrow`` names."""
    size = os.fstat(0).st_size
    limit = _BASE_BYTES + _PER_BYTE * size
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        import pyarrow as pa  # noqa: PLC0415
    except ImportError:
        return NO_PYARROW
    pa.set_cpu_count(1)
    try:
        table = _table(pa, kind, sys.stdin.buffer.read())
        arrays = _arrays(pa, table)
        np.savez(sys.stdout.buffer, allow_pickle=False, **arrays)
        sys.stdout.flush()
    except _Other as error:
        print(error, file=sys.stderr)
        return OTHER
    except OSError as error:
        look_away()
        # Arrow's own errors of this kind have no number.
        return NO_ROOM if error.errno in _FULL else DAMAGED
    except (pa.ArrowException, ValueError, OverflowError, MemoryError):
        return DAMAGED
    return 0


def _table(pa: Any, kind: str, data: bytes) -> Any:
    source = pa.BufferReader(data)
    if kind == "parquet":
        from pyarrow import parquet  # noqa: PLC0415

        file = parquet.ParquetFile(source)
        names, read = file.schema_arrow.names, file.read
    else:
        reader = pa.ipc.open_file(source)
        names, read = reader.schema.names, reader.read_all
    missing = [name for name in (*_TEXTS, "embedding", *_PIXELS) if names.count(name) != 1]
    if missing:
        raise _Other(f"it holds no {', '.join(missing)}: it is no gallery of DeepFace")
    options = {"use_threads": False} if kind == "parquet" else {}
    table = read(**options)
    table.validate(full=True)
    schema = pa.schema(
        [(name, pa.string()) for name in _TEXTS]
        + [("embedding", pa.list_(pa.float64()))]
        + [(name, pa.int64()) for name in _PIXELS]
    )
    return table.select(schema.names).cast(schema)


def _arrays(pa: Any, table: Any) -> dict[str, Any]:
    from pyarrow import compute  # noqa: PLC0415

    arrays = {}
    for name in (*_TEXTS, *_PIXELS):
        column = table.column(name)
        if column.null_count:
            raise _Other(f"its column {name!r} has holes")
        if name in _TEXTS and (compute.max(compute.utf8_length(column)).as_py() or 0) > _MAX_TEXT:
            raise _Other(f"its column {name!r} has more than {_MAX_TEXT} letters in a row")
        arrays[name] = np.array(column.to_pylist(), np.str_) if name in _TEXTS else column.to_numpy()
    embeddings = table.column("embedding").combine_chunks()
    if isinstance(embeddings, pa.ChunkedArray):
        embeddings = pa.concat_arrays(embeddings.chunks)
    held = embeddings.is_valid().to_numpy(zero_copy_only=False).astype(bool)
    lengths = compute.unique(embeddings.value_lengths().drop_null()).to_pylist()
    if len(lengths) > 1:
        raise _Other(f"its embeddings have different lengths: {', '.join(map(str, sorted(lengths)))}")
    dimension = lengths[0] if lengths else 0
    values = embeddings.flatten()
    if values.null_count:
        raise _Other("an embedding is not a list of numbers")
    rows = values.to_numpy().reshape(-1, dimension) if dimension else np.zeros((int(held.sum()), 0))
    if not held.all():
        full = np.zeros((len(held), dimension))
        full[held] = rows
        rows = full
    return {**arrays, "embedding": rows, "has_embedding": held}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
