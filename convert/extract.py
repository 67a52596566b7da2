"""Weights out of archives. Nothing that an archive holds is ever imported or run."""

from __future__ import annotations

import ast
import zipfile
import zlib
from pathlib import Path

from convert.errors import FetchError

MAX_MEMBER_BYTES = 2 * 1024**3


def read_member(archive: Path, member: str) -> bytes:
    """The bytes of one file of a wheel or another zip archive.

    Raises:
        FetchError: the archive is damaged, has no such file, or the file is over ``MAX_MEMBER_BYTES``.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            info = file.getinfo(member)
            if info.file_size > MAX_MEMBER_BYTES:
                raise FetchError(f"{member} in {archive.name} has {info.file_size:,} bytes; that is no model of ours.")
            return file.read(info)
    except KeyError as error:
        raise FetchError(f"{archive.name} holds no file {member}.") from error
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        # A RuntimeError is an encrypted member or an unknown compression.
        raise FetchError(f"{archive.name} cannot be read as a zip archive: {error}.") from error


def read_literal(source: bytes, variable: str) -> bytes:
    """The value of ``variable = b"..."`` in Python source, read from the syntax tree without running the source.

    Raises:
        FetchError: the source does not parse, or assigns no bytes literal to ``variable`` at its top level.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        # What is nested too deep for the parser is told as a lack of memory.
        raise FetchError(f"The Python file that should hold {variable} cannot be parsed: {error}.") from error
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == variable for target in targets):
            value = _literal(node)
            if isinstance(value, bytes):
                return value
            raise FetchError(f"{variable} is not a bytes literal.")
    raise FetchError(f"The Python file assigns no {variable}.")


def _literal(node: ast.stmt) -> object:
    assert isinstance(node, ast.Assign)
    try:
        return ast.literal_eval(node.value)
    except ValueError:
        return None
