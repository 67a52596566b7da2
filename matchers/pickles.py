"""Pickles as data: a reader that cannot run code.

It is a small machine of its own for the opcodes that hold data (``Lib/pickletools.py`` of CPython describes them). It
never imports, calls or looks up anything that a file names: what numpy writes is recognised by name and rebuilt from
checked numbers, every other name is refused.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from matchers.errors import GalleryError


@dataclass(frozen=True, slots=True)
class Limits:
    """What a pickle may cost.

    Attributes:
        max_bytes: size of the file.
        max_stack: values that wait for their container; DeepFace's files need about a thousand.
        max_depth: containers inside containers; a gallery has three.
        max_integer_bytes: length of a long integer.
        base_steps: opcodes that any file may have. A list of four or more floats counts as one.
        bytes_per_step: one more is allowed for so many bytes of the file, so that a small file cannot fill the memory;
            a record of DeepFace has about thirty in more than a thousand bytes.
        base_shared: characters and bytes that any file may take from its memo, beyond its own size.
    """

    max_bytes: int = 8 * 2**30
    max_stack: int = 100_000
    max_depth: int = 16
    max_integer_bytes: int = 16
    base_steps: int = 200_000
    bytes_per_step: int = 8
    base_shared: int = 16 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class FloatRun:
    """Consecutive floats of a list, kept as an array: (n,) float64, big-endian as in the file."""

    values: npt.NDArray[np.float64]


# Opcodes between two tellings of how far it is.
_STEPS: Final = 50_000
_FLOAT: Final = ord("G")
# So many floats in a row are kept as an array.
_FEW: Final = 4
_FLOAT_RECORD: Final = np.dtype([("opcode", "u1"), ("value", ">f8")])
_LINE_LIMIT: Final = 4096
_MARK: Final = object()
_NUMBERS: Final = re.compile(r"[iu][1248]|f[248]|b1")
_FRAME: Final = 0x95
_APPENDS: Final = ord("e")
_STOP: Final = ord(".")


def load(data: bytes, limits: Limits | None = None, on_progress: Callable[[int, int], None] | None = None) -> object:
    """The value that a pickle of protocol 0 to 5 holds: containers, numbers, strings, bytes and numpy arrays.

    Four or more floats in a row stand in their list as :class:`FloatRun`. The value is a tree: a file that puts one
    container into two places is refused, so no small file can stand for a huge value.

    Args:
        on_progress: called now and then with the bytes read and the bytes to read.

    Raises:
        GalleryError: the file names something to run, is damaged, or passes a limit. Nothing was executed.
    """
    limits = limits or Limits()
    if len(data) > limits.max_bytes:
        raise GalleryError(f"the pickle has {len(data):,} bytes; at most {limits.max_bytes:,} are read")
    machine = _Machine(data, limits, on_progress)
    try:
        value = machine.run()
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, struct.error) as error:
        raise GalleryError(f"the pickle is damaged near byte {machine.position:,}") from error
    _check_tree(value, limits.max_depth)
    return value


def _check_tree(value: object, max_depth: int) -> None:
    level = [value]
    for _ in range(max_depth + 1):
        below: list[object] = []
        for item in level:
            if isinstance(item, list | tuple):
                below.extend(item)
            elif isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, _Named | _Dtype):
                raise GalleryError("the pickle holds a name of code as a value; nothing of it was run")
        if not below:
            return
        level = below
    raise GalleryError(f"the pickle nests containers more than {max_depth} deep")


class _Named:
    """A global that the file names; nothing is looked up."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Dtype:
    """What becomes a numpy number type."""

    def __init__(self, code: str) -> None:
        if not _NUMBERS.fullmatch(code):
            raise GalleryError(f"the pickle holds a numpy array of type {code[:20]!r}; only numbers are read")
        self.value = np.dtype(code)

    def build(self, state: Any) -> None:
        order = state[1]
        if order in {"<", ">"}:
            self.value = self.value.newbyteorder(order)


class _Array:
    """What becomes a numpy array."""

    def __init__(self) -> None:
        self.value: npt.NDArray[Any] = np.empty(0)

    def build(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        self.fill(raw, dtype, shape, "F" if fortran else "C")

    def fill(self, raw: Any, dtype: Any, shape: Any, order: Any) -> None:
        if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes) or not isinstance(shape, tuple):
            raise GalleryError("the pickle holds a numpy array that is not made of numbers")
        flat = np.frombuffer(raw, dtype.value)
        if len(shape) > 2 or any(type(side) is not int or side < 0 for side in shape) or math.prod(shape) != len(flat):
            raise GalleryError("the pickle holds a numpy array whose shape does not fit its bytes")
        self.value = flat.reshape(shape, order="F" if order == "F" else "C")


def _make_dtype(arguments: Any) -> _Dtype:
    return _Dtype(arguments[0])


def _make_array(arguments: Any) -> _Array:
    if not isinstance(arguments[0], _Named) or arguments[0].name != "numpy ndarray":
        raise GalleryError("the pickle rebuilds something that is no numpy array")
    return _Array()


def _make_array_from_buffer(arguments: Any) -> _Array:
    array = _Array()
    array.fill(*arguments)
    return array


def _make_scalar(arguments: Any) -> Any:
    dtype, raw = arguments
    if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes) or len(raw) != dtype.value.itemsize:
        raise GalleryError("the pickle holds a numpy scalar that is no number")
    return np.frombuffer(raw, dtype.value)[0].item()


def _make_bytes(arguments: Any) -> bytes:
    text, codec = arguments
    if not isinstance(text, str) or codec != "latin1":
        raise GalleryError("the pickle encodes something that is no text")
    return text.encode("latin1")


_MAKERS: Final[dict[str, Callable[[Any], Any]]] = {
    "numpy dtype": _make_dtype,
    "numpy.core.multiarray _reconstruct": _make_array,
    "numpy._core.multiarray _reconstruct": _make_array,
    "numpy.core.numeric _frombuffer": _make_array_from_buffer,
    "numpy._core.numeric _frombuffer": _make_array_from_buffer,
    "numpy.core.multiarray scalar": _make_scalar,
    "numpy._core.multiarray scalar": _make_scalar,
    "_codecs encode": _make_bytes,
}
_NAMES: Final = frozenset({*_MAKERS, "numpy ndarray"})


class _Machine:
    def __init__(self, data: bytes, limits: Limits, on_progress: Callable[[int, int], None] | None = None) -> None:
        self.data = data
        self.on_progress = on_progress
        self.position = 0
        self.limits = limits
        self.stack: list[Any] = []
        self.memo: list[Any] = []
        self.expected = 2**10
        self.steps_left = limits.base_steps + len(data) // limits.bytes_per_step
        self.shared_left = limits.base_shared + len(data)

    def run(self) -> object:
        while self.steps_left > 0:
            steps = min(self.steps_left, _STEPS)
            self.steps_left -= steps
            if self.on_progress is not None:
                self.on_progress(self.position, len(self.data))
            if self.ended(steps):
                if len(self.stack) != 1 or self.stack[0] is _MARK or self.position != len(self.data):
                    raise GalleryError("the pickle ends with something left over")
                return _finished(self.stack[0])
        raise GalleryError("the pickle makes far more values than its size explains")

    def ended(self, steps: int) -> bool:
        """Do so many opcodes at most; whether the last one is reached."""
        data, stack, actions, most = self.data, self.stack, _ACTIONS, self.limits.max_stack
        for _ in range(steps):
            opcode = data[self.position]
            if opcode == _FLOAT and self.float_run():
                continue
            self.position += 1
            if opcode == _STOP:
                return True
            action = actions.get(opcode)
            if action is None and self.position == 1:
                raise GalleryError("it is no pickle, whatever its name says")
            if action is None:
                raise GalleryError(
                    f"the pickle has opcode 0x{opcode:02x} at byte {self.position - 1:,}, which no gallery needs; "
                    "it is damaged or hostile, nothing of it was run"
                )
            action(self)
            if len(stack) > most:
                raise GalleryError(f"the pickle keeps more than {most:,} values waiting")
        return False

    def float_run(self) -> bool:
        """Take floats that end a list, at most one frame's border among them, without making objects of them."""
        data, end = self.data, self.position
        runs = []
        for _ in range(2):
            count = self.count_floats(end)
            if count < _FEW:
                break
            runs.append((end, count))
            end += 9 * count
            if data[end] != _FRAME:
                break
            end += 9
        if not runs or data[end] != _APPENDS:
            return False
        for start, count in runs:
            records = np.frombuffer(data, _FLOAT_RECORD, count, start)
            self.stack.append(FloatRun(records["value"]))
        self.position = end
        return True

    def count_floats(self, start: int) -> int:
        """How many floats follow each other from byte ``start`` on."""
        found, step = 0, self.expected
        while True:
            opcodes = self.data[start + 9 * found : start + 9 * (found + step) : 9]
            same = len(opcodes) - len(opcodes.lstrip(b"G"))
            found += same
            if same < step:
                break
            step = min(2 * step, 2**16)
        self.expected = max(16, min(found + 1, 2**13))
        return min(found, (len(self.data) - start) // 9)

    def take(self, count: int) -> bytes:
        start, end = self.position, self.position + count
        if count < 0 or end > len(self.data):
            raise GalleryError("the pickle is cut off, or says a length that it does not have")
        self.position = end
        return self.data[start:end]

    def byte(self) -> int:
        value = self.data[self.position]
        self.position += 1
        return value

    def number(self, layout: str) -> Any:
        (value,) = struct.unpack(layout, self.take(struct.calcsize(layout)))
        return value

    def line(self) -> str:
        end = self.data.find(b"\n", self.position, self.position + _LINE_LIMIT)
        if end < 0:
            raise GalleryError("the pickle is cut off, or has a line without an end")
        text = self.data[self.position : end]
        self.position = end + 1
        return text.decode("utf-8")

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise GalleryError("the pickle is damaged: a value is missing")
        return _finished(value)

    def since_mark(self) -> list[Any]:
        stack = self.stack
        for start in range(len(stack) - 1, -1, -1):
            if stack[start] is _MARK:
                values = [_finished(value) for value in stack[start + 1 :]]
                del stack[start:]
                return values
        raise GalleryError("the pickle is damaged: a mark is missing")

    def memoize(self) -> None:
        self.memo.append(self.stack[-1])

    def remember(self, index: int) -> None:
        value = self.stack[-1]
        if index == len(self.memo):
            self.memo.append(value)
        elif 0 <= index < len(self.memo):
            self.memo[index] = value
        else:
            raise GalleryError(f"the pickle skips to number {index:,} of its memo")

    def recall(self, index: int) -> None:
        if index < 0:
            raise GalleryError("the pickle asks for a negative number of its memo")
        value = self.memo[index]
        if value is _MARK or isinstance(value, list | dict | tuple | _Array | np.ndarray):
            raise GalleryError("the pickle puts one container into several places, which no gallery needs")
        if isinstance(value, str | bytes):
            self.shared_left -= len(value)
            if self.shared_left < 0:
                raise GalleryError("the pickle repeats far more than its size explains")
        self.stack.append(value)

    def extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise GalleryError("the pickle appends to something that is no list")
        target.extend(values)

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(values) % 2:
            raise GalleryError("the pickle sets items of something that is no dictionary")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(key) is not str:
                raise GalleryError("the pickle has a dictionary key that is no text")
            target[key] = value

    def name(self, module: str, attribute: str) -> None:
        full = f"{module} {attribute}"
        if full not in _NAMES:
            raise GalleryError(
                f"the pickle names {full[:80]!r} to be run, which no gallery needs; it is hostile or of another kind, "
                "nothing of it was run"
            )
        self.stack.append(_Named(full))

    def stack_name(self) -> None:
        attribute, module = self.pop(), self.pop()
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise GalleryError("the pickle names something to be run; nothing of it was run")
        self.name(module, attribute)

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, _Named) or function.name not in _MAKERS or not isinstance(arguments, tuple):
            raise GalleryError("the pickle calls something; nothing of it was run")
        self.stack.append(_MAKERS[function.name](arguments))

    def build(self) -> None:
        state, target = self.pop(), self.stack[-1]
        if not isinstance(target, _Array | _Dtype):
            raise GalleryError("the pickle sets the state of something that has none; nothing of it was run")
        target.build(state)

    def integer_line(self) -> int | bool:
        text = self.line()
        if text in {"00", "01"}:
            return text == "01"
        return self.checked_integer(text.removesuffix("L"))

    def checked_integer(self, text: str) -> int:
        if len(text) > 3 * self.limits.max_integer_bytes:
            raise GalleryError("the pickle holds a number that is too long")
        return int(text)

    def long(self, size: int) -> int:
        if size > self.limits.max_integer_bytes:
            raise GalleryError("the pickle holds a number that is too long")
        return int.from_bytes(self.take(size), "little", signed=True)


def _finished(value: Any) -> Any:
    """Arrays are whole once they leave the stack; a type must stay one until its state is set."""
    return value.value if isinstance(value, _Array) else value


def _text(machine: _Machine, layout: str) -> str:
    return machine.take(machine.number(layout)).decode("utf-8", "surrogatepass")


def _bytes(machine: _Machine, layout: str) -> bytes:
    return machine.take(machine.number(layout))


def _quoted(machine: _Machine) -> str:
    text = machine.line()
    if len(text) < 2 or text[0] not in "'\"" or text[-1] != text[0] or "\\" in text:
        raise GalleryError("the pickle holds a string of protocol 0 with quoting that is not read")
    return text[1:-1]


def _push(value: Callable[[_Machine], Any]) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(value(machine))


def _tuple(count: int) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(tuple(reversed([machine.pop() for _ in range(count)])))


def _pop(machine: _Machine) -> None:
    machine.stack.pop()


def _pop_mark(machine: _Machine) -> None:
    machine.since_mark()


def _append(machine: _Machine) -> None:
    value = machine.pop()
    machine.extend([value])


def _set_item(machine: _Machine) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _make_dict(machine: _Machine) -> None:
    values = machine.since_mark()
    machine.stack.append({})
    machine.set_items(values)


def _protocol(machine: _Machine) -> None:
    version = machine.number("<B")
    if version > 5:
        raise GalleryError(f"the pickle is of protocol {version}; 0 to 5 are read")


def _frame(machine: _Machine) -> None:
    if machine.number("<Q") > len(machine.data) - machine.position:
        raise GalleryError("the pickle is cut off, or says a length that it does not have")


_ACTIONS: Final[dict[int, Callable[[_Machine], None]]] = {
    0x80: _protocol,
    _FRAME: _frame,
    ord("("): lambda m: m.stack.append(_MARK),
    ord("0"): _pop,
    ord("1"): _pop_mark,
    ord("N"): _push(lambda _: None),
    0x88: _push(lambda _: True),
    0x89: _push(lambda _: False),
    ord("I"): _push(_Machine.integer_line),
    ord("L"): _push(_Machine.integer_line),
    ord("J"): _push(lambda m: m.number("<i")),
    ord("K"): lambda m: m.stack.append(m.byte()),
    ord("M"): _push(lambda m: m.number("<H")),
    0x8A: _push(lambda m: m.long(m.number("<B"))),
    0x8B: _push(lambda m: m.long(m.number("<I"))),
    ord("F"): _push(lambda m: float(m.line())),
    ord("G"): _push(lambda m: m.number(">d")),
    ord("S"): _push(_quoted),
    ord("V"): _push(lambda m: m.line().encode("ascii").decode("raw-unicode-escape")),
    ord("U"): _push(lambda m: _bytes(m, "<B").decode("latin1")),
    ord("T"): _push(lambda m: _bytes(m, "<i").decode("latin1")),
    ord("X"): _push(lambda m: _text(m, "<I")),
    0x8C: lambda m: m.stack.append(m.take(m.byte()).decode("utf-8", "surrogatepass")),
    0x8D: _push(lambda m: _text(m, "<Q")),
    ord("C"): _push(lambda m: _bytes(m, "<B")),
    ord("B"): _push(lambda m: _bytes(m, "<I")),
    0x8E: _push(lambda m: _bytes(m, "<Q")),
    0x96: _push(lambda m: _bytes(m, "<Q")),
    ord("]"): _push(lambda _: []),
    ord("l"): _push(_Machine.since_mark),
    ord("a"): _append,
    _APPENDS: lambda m: m.extend(m.since_mark()),
    ord(")"): _push(lambda _: ()),
    ord("t"): _push(lambda m: tuple(m.since_mark())),
    0x85: _tuple(1),
    0x86: _tuple(2),
    0x87: _tuple(3),
    ord("}"): _push(lambda _: {}),
    ord("d"): _make_dict,
    ord("s"): _set_item,
    ord("u"): lambda m: m.set_items(m.since_mark()),
    ord("g"): lambda m: m.recall(m.checked_integer(m.line())),
    ord("h"): lambda m: m.recall(m.byte()),
    ord("j"): lambda m: m.recall(m.number("<I")),
    ord("p"): lambda m: m.remember(m.checked_integer(m.line())),
    ord("q"): lambda m: m.remember(m.number("<B")),
    ord("r"): lambda m: m.remember(m.number("<I")),
    0x94: _Machine.memoize,
    ord("c"): lambda m: m.name(m.line(), m.line()),
    0x93: _Machine.stack_name,
    ord("R"): _Machine.reduce,
    ord("b"): _Machine.build,
}
