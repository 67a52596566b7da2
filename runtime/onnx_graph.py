"""What rewriting an ONNX graph needs: attributes of a node, who reads a value, other items in the place of some, and
what stands in a file at all."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnx
from onnx import helper


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """The value of an attribute of ``node``, or ``default``."""
    return next((helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), default)


def only_reader(graph: onnx.GraphProto, name: str) -> onnx.NodeProto | None:
    """The node that reads the value ``name``; None where none does, or more than one."""
    readers = [node for node in graph.node if name in node.input]
    return readers[0] if len(readers) == 1 else None


def replace_items(field: Any, items: Iterable[Any]) -> None:
    """Put ``items``, which may be some of those that it holds, in the place of all that a repeated field holds."""
    kept = list(items)
    del field[:]
    field.extend(kept)


def mentions(path: Path, *words: bytes) -> bool:
    """Whether one of ``words`` stands in the file at ``path``, which is not empty; it is not parsed."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(word) >= 0 for word in words)
