"""Hostile and damaged galleries: a clear error, nothing executed, little memory, little time."""

from __future__ import annotations

import copyreg
import os
import pickle
import shutil
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matchers.errors import GalleryError
from matchers.names import person_name
from matchers.pickles import FloatRun, Limits, load
from matchers.records import read_gallery


class Calls:
    """Pickles as the call of ``function`` with ``arguments``."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class Stateful:
    def __setstate__(self, state: object) -> None:
        raise AssertionError("executed")

    def __getstate__(self) -> object:
        return {"x": 1}


def long_binunicode(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def record(embedding: bytes) -> bytes:
    return (
        b"\x80\x04]}("
        + long_binunicode("identity")
        + long_binunicode("a/1.jpg")
        + long_binunicode("embedding")
        + (embedding + b"ua.")
    )


def touch(canary: Path) -> str:
    return f"touch {canary}"


HOSTILE: dict[str, Callable[[Path], bytes]] = {
    "os.system by REDUCE": lambda c: pickle.dumps(Calls(os.system, touch(c))),
    "os.system in protocol 0": lambda c: b"cos\nsystem\n(S'" + touch(c).encode() + b"'\ntR.",
    "os.system hidden in a record": lambda c: pickle.dumps(
        [{"identity": "a/1.jpg", "embedding": Calls(os.system, touch(c))}]
    ),
    "eval": lambda c: pickle.dumps(Calls(eval, f"open({str(c)!r}, 'w')")),
    "exec": lambda c: pickle.dumps(Calls(exec, f"open({str(c)!r}, 'w')")),
    "subprocess": lambda c: pickle.dumps(Calls(subprocess.call, ["touch", str(c)])),
    "open for writing": lambda c: b"cbuiltins\nopen\n(S'" + str(c).encode() + b"'\nS'w'\ntR.",
    "INST": lambda c: b"(S'" + touch(c).encode() + b"'\nios\nsystem\n.",
    "OBJ": lambda c: b"(cos\nsystem\nS'" + touch(c).encode() + b"'\no.",
    "NEWOBJ": lambda _: b"\x80\x02cbuiltins\nlist\n)\x81.",
    "NEWOBJ_EX": lambda _: b"\x80\x04cbuiltins\ndict\n)}\x92.",
    "BUILD with __setstate__": lambda _: pickle.dumps(Stateful()),
    "BUILD on a dictionary": lambda _: b"\x80\x02}}b.",
    "STACK_GLOBAL with a dotted name": lambda c: (
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c" + struct.pack("<B", len(touch(c))) + touch(c).encode() + b"\x85R."
    ),
    "nested getattr": lambda _: b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR.",
    "numpy objects that carry a pickle": lambda c: np.array([Calls(os.system, touch(c))], object).dumps(),
    "numpy array of objects, no call": lambda _: pickle.dumps(np.array([None, "x"], object)),
    "numpy reconstruct of another class": lambda _: (
        b"cnumpy.core.multiarray\n_reconstruct\n(cbuiltins\nlist\n(I0\ntS'b'\ntR."
    ),
    "numpy void type": lambda _: b"cnumpy\ndtype\n(S'V8'\nI0\nI1\ntR.",
    "numpy shape that does not fit": lambda _: pickle.dumps(np.zeros(3)).replace(b"K\x03", b"K\x7f"),
    "numpy.load": lambda c: b"cnumpy\nload\n(S'" + str(c).encode() + b"'\ntR.",
    "copyreg": lambda _: pickle.dumps(Calls(copyreg._reconstructor, object, object, None)),  # type: ignore[attr-defined]
    "extension registry": lambda _: b"\x80\x02\x82\x01.",
    "persistent id as text": lambda _: b"Pos.system\n.",
    "persistent id as object": lambda _: b"\x80\x02K\x01Q.",
    "out-of-band buffer": lambda _: b"\x80\x05\x97.",
    "codec that is not latin1": lambda _: b"c_codecs\nencode\n(S'a'\nS'idna'\ntR.",
    "huge BINBYTES8": lambda _: b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
    "huge BINUNICODE": lambda _: b"\x80\x04X" + struct.pack("<I", 2**32 - 1) + b"x.",
    "huge BYTEARRAY8": lambda _: b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.",
    "negative BINSTRING": lambda _: b"T" + struct.pack("<i", -5) + b"x.",
    "huge memo index": lambda _: b"\x80\x02]r" + struct.pack("<I", 2**32 - 1) + b"0j" + struct.pack("<I", 7) + b".",
    "huge integer": lambda _: b"\x80\x02\x8b" + struct.pack("<I", 2**20) + b"\xff" * 2**20 + b".",
    "huge integer as text": lambda _: b"L" + b"9" * 4000 + b"L\n.",
    "line without an end": lambda _: b"I" + b"1" * 2**20,
    "deep nesting": lambda _: b"\x80\x04" + b"]" * 2_000_000 + b"a" * 1_999_999 + b".",
    "deep tuples": lambda _: b"\x80\x04N" + b"\x85" * 2_000_000 + b".",
    "many marks": lambda _: b"(" * 2_000_000 + b".",
    "memo bomb": lambda _: b"\x80\x04" + b"]\x940" * 3_000_000 + b"N.",
    "list that contains itself": lambda _: b"\x80\x04]\x94h\x00a.",
    "doubling lists": lambda _: b"\x80\x04]\x94(" + b"h\x00" * 50_000 + b"e" + b"(" + b"h\x00" * 50_000 + b"e.",
    "embedding repeated by reference": lambda _: record(
        b"](" + b"G" + bytes(8) + b"G" + bytes(8) + b"\x94" + b"h\x00" * 90_000 + b"e"
    ),
    "one embedding in many records": lambda _: (
        b"\x80\x04](]\x94(" + long_binunicode("a/1.jpg") + b"](" + (b"G" + b"?" * 8) * 8000 + b"ee"
        b"" + b"h\x00" * 50_000 + b"e."
    ),
    "one long identity in many records": lambda _: (
        b"\x80\x04" + long_binunicode("a/" + "b" * 4000) + b"\x940](" + b"](h\x00Ne" * 30_000 + b"e."
    ),
    "one record in two places": lambda _: pickle.dumps([["a/1.jpg", np.ones(4000)]] * 2),
    "STACK_GLOBAL with doubling lists for a name": lambda _: (
        b"\x80\x04]\x94" + b"".join(b"(h%ch%cl\x94" % (i, i) for i in range(60)) + short("x") + b"\x93."
    ),
    "STACK_GLOBAL with nested tuples for a name": lambda _: b"\x80\x04)" + b"\x85" * 5000 + short("x") + b"\x93.",
    "nothing but None": lambda _: b"\x80\x04](" + (b"N" * 90_000 + b"e(") * 40 + b"e.",
    "type as a value": lambda _: pickle.dumps([["a/1.jpg", np.dtype("f4")]]),
    "frame longer than the file": lambda _: b"\x80\x04\x95" + struct.pack("<Q", 2**40) + pickle.dumps([])[2:],
    "something after the end": lambda _: pickle.dumps([]) + b"cos\nsystem\n.",
    "a text": lambda _: b"identity,embedding\namy/1.jpg,0.5\n",
    "nothing": lambda _: b"",
    "no list": lambda _: pickle.dumps({"identity": "x"}),
    "list of numbers": lambda _: pickle.dumps([1, 2, 3]),
    "embedding of words": lambda _: pickle.dumps([{"identity": "a/1.jpg", "embedding": ["x"] * 4}]),
    "embedding of NaN": lambda _: pickle.dumps([{"identity": "a/1.jpg", "embedding": [float("nan")] * 4}]),
    "identity that is a number": lambda _: pickle.dumps([{"identity": 5, "embedding": [1.0, 2.0]}]),
    "box of infinity": lambda _: pickle.dumps(
        [{"identity": "a/1.jpg", "embedding": [1.0, 2.0], "target_x": float("inf")}]
    ),
    "embeddings of two lengths": lambda _: pickle.dumps([["a/1.jpg", [1.0, 2.0]], ["a/2.jpg", [1.0, 2.0, 3.0]]]),
    "protocol 9": lambda _: b"\x80\x09].",
}


def test_there_are_many_kinds_of_hostile_files() -> None:
    assert len(HOSTILE) >= 20


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_refused_and_nothing_is_executed(kind: str, tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "gallery.pkl"
    path.write_bytes(HOSTILE[kind](canary))
    with pytest.raises(GalleryError):
        read_gallery(path)
    assert not canary.exists()


def test_the_canary_dies_under_pickle_itself(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    pickle.loads(HOSTILE["os.system by REDUCE"](canary))
    assert canary.exists()


def test_hostile_files_together_stay_under_300_megabytes(tmp_path: Path) -> None:
    for number, make in enumerate(HOSTILE.values()):
        (tmp_path / f"{number}.pkl").write_bytes(make(tmp_path / "canary"))
    program = """
        import re, sys
        from pathlib import Path
        from matchers.errors import GalleryError
        from matchers.records import read_gallery
        for path in Path(sys.argv[1]).glob("*.pkl"):
            try:
                read_gallery(path)
            except GalleryError:
                continue
            raise SystemExit(f"{path} was read")
        print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert int(result.stdout) < 300_000


@pytest.fixture(scope="module")
def real_gallery(shared: Path) -> bytes:
    (path,) = (shared / "galleries" / "deepface-0.0.96").glob("*.pkl")
    return path.read_bytes()


def test_a_gallery_of_deepface_reads_as_pickle_reads_it(real_gallery: bytes, tmp_path: Path) -> None:
    path = tmp_path / "gallery.pkl"
    path.write_bytes(real_gallery)
    gallery = read_gallery(path)
    records = pickle.loads(real_gallery)
    assert len(gallery.faces) == len(records) == 40
    for face, expected in zip(gallery.faces, records, strict=True):
        raw = np.array(expected["embedding"])
        assert expected["identity"].endswith(face.source)
        assert face.person == face.source.split("/")[0]
        assert face.digest == expected["hash"]
        assert face.box == tuple(expected[f"target_{side}"] for side in "xywh")
        assert np.abs(face.embedding - raw / np.linalg.norm(raw)).max() < 1e-6


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> tuple[bytes, int]:
    """A file with bytes changed, pieces lost and repeated, or its end cut off, and how many pieces were repeated."""
    data, repeated = bytearray(whole), 0
    # Between the numbers of an embedding, 512 of nine bytes each, only few bytes are structure.
    places = st.one_of(st.integers(0, len(whole) - 1), st.integers(0, 400), st.integers(4600, 5000))
    for kind in draw(st.lists(st.sampled_from(["change", "lose", "repeat"]), max_size=8)):
        start, length = draw(places), draw(st.integers(1, 300))
        if kind == "change":
            data[start : start + 1] = bytes([draw(st.integers(0, 255))])
        elif kind == "lose":
            del data[start : start + length]
        else:
            repeated += 1
            target = draw(places)
            data[target:target] = data[start : start + length]
    cut = draw(st.one_of(st.none(), st.integers(0, len(data))))
    return bytes(data[:cut]), repeated


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damage_to_a_real_gallery_is_an_error_or_harmless(
    real_gallery: bytes, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content, repeated = data.draw(damaged(real_gallery))
    path = tmp_path_factory.mktemp("damaged") / "gallery.pkl"
    path.write_bytes(content)
    try:
        gallery = read_gallery(path)
    except GalleryError as error:
        assert str(path) in str(error)
        return
    finally:
        shutil.rmtree(path.parent)
    assert len(gallery.faces) + len(gallery.empty) <= 40 + repeated
    for face in gallery.faces:
        assert person_name(face.person) == face.person
        assert abs(np.linalg.norm(face.embedding) - 1) < 1e-5


plain = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**100), 2**100),
        st.floats(allow_nan=False),
        st.text(),
        st.binary(min_size=1),
    ),
    lambda inner: st.one_of(
        st.lists(inner), st.dictionaries(st.text(), inner), st.tuples(inner), st.tuples(inner, inner, inner, inner)
    ),
)


def without_runs(value: Any) -> Any:
    if isinstance(value, list | tuple):
        flat: list[Any] = []
        for part in value:
            flat.extend(part.values.tolist() if isinstance(part, FloatRun) else [without_runs(part)])
        return type(value)(flat)
    if isinstance(value, dict):
        return {key: without_runs(part) for key, part in value.items()}
    return value


@given(value=plain, protocol=st.sampled_from([1, 2, 3, 4, 5]))
def test_plain_values_read_as_they_were_written(value: Any, protocol: int) -> None:
    read = without_runs(load(pickle.dumps(value, protocol), Limits(max_integer_bytes=64)))
    assert read == value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i8", "|u1"])
def test_arrays_of_numbers_are_read(protocol: int, dtype: str) -> None:
    array = np.arange(12).astype(dtype).reshape(3, 4)
    read = load(pickle.dumps([array, array[0, 3]], protocol))
    assert isinstance(read, list)
    assert np.array_equal(read[0], array)
    assert read[1] == 3


def test_a_file_that_never_ends_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pkl")
    for path in (tmp_path / "pipe.pkl", Path("/dev/zero"), tmp_path, tmp_path / "missing.pkl"):
        with pytest.raises(GalleryError, match=path.name):
            read_gallery(path)


def test_a_picture_is_no_pickle() -> None:
    with pytest.raises(GalleryError, match="it is no pickle"):
        load(b"\xff\xd8\xff\xe0")


def test_limits_are_kept() -> None:
    nested = pickle.dumps([[[[1]]]])
    assert load(nested, Limits(max_depth=4)) == [[[[1]]]]
    with pytest.raises(GalleryError, match="more than 3 deep"):
        load(nested, Limits(max_depth=3))
    with pytest.raises(GalleryError, match="bytes"):
        load(nested, Limits(max_bytes=5))
