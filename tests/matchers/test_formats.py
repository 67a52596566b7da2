"""The galleries of DeepFace, in each of its formats and generations, and what breaks them."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import subprocess
import sys
import tempfile
import textwrap
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import feather, parquet

from matchers.errors import GalleryError
from matchers.formats import FORMATS, UnknownFormat, format_of, read_records
from matchers.npz import read_npz
from matchers.records import Gallery, Records, gallery_of

COLUMNS = ("identity", "hash", "embedding", "target_x", "target_y", "target_w", "target_h")


def read(path: Path) -> Records:
    with path.open("rb") as file:
        return read_records(file, format_of(path.name))


def held(path: Path, roots: Collection[tuple[str, ...]] = ()) -> Gallery:
    return gallery_of(read(path), path.parent.name, roots)


@pytest.fixture(scope="module")
def samples(shared: Path) -> dict[str, Path]:
    """One gallery of DeepFace in each format."""
    files = [
        path for folder in ("deepface-0.0.96", "deepface-0.0.103") for path in (shared / "galleries" / folder).iterdir()
    ]
    return {path.suffix[1:]: path for path in files}


def expected(path: Path) -> list[dict[str, Any]]:
    """The records as DeepFace reads them."""
    match path.suffix:
        case ".pkl":
            records: list[dict[str, Any]] = pickle.loads(path.read_bytes())
            return records
        case ".npz":
            columns = {name: array.tolist() for name, array in np.load(path, allow_pickle=False).items()}
            return [
                dict(zip(COLUMNS, row, strict=True)) for row in zip(*(columns[name] for name in COLUMNS), strict=True)
            ]
        case _:
            read_table = parquet.read_table if path.suffix == ".parquet" else feather.read_table
            rows: list[dict[str, Any]] = read_table(path).to_pylist()
            return rows


@pytest.mark.parametrize("kind", FORMATS)
def test_galleries_read_as_deepface_reads_them(samples: dict[str, Path], kind: str) -> None:
    gallery, records = held(samples[kind]), expected(samples[kind])
    assert len(gallery.faces) == len(records) == 40
    assert not gallery.empty and not gallery.unusable and not gallery.copies
    assert len({face.person for face in gallery.faces}) == 8
    for face, record in zip(gallery.faces, records, strict=True):
        raw = np.array(record["embedding"])
        assert record["identity"] == f"bbt/{face.source}"
        assert face.person == face.source.split("/")[0]
        assert face.digest == record["hash"]
        assert face.box == tuple(record[f"target_{side}"] for side in "xywh")
        assert np.abs(face.embedding - raw / np.linalg.norm(raw)).max() < 1e-6


def test_older_generations_are_read(tmp_path: Path) -> None:
    two = tmp_path / "representations_arcface.pkl"
    two.write_bytes(pickle.dumps([["db/amy/1.jpg", [3.0, 4.0]], ["db/bob/1.jpg", [4.0, 3.0]]]))
    assert [(face.person, face.source, face.box) for face in held(two).faces] == [
        ("amy", "amy/1.jpg", (0, 0, 0, 0)),
        ("bob", "bob/1.jpg", (0, 0, 0, 0)),
    ]
    six = tmp_path / "representations_vgg_face.pkl"
    six.write_bytes(
        pickle.dumps([["db/amy/1.jpg", [3.0, 4.0], 5, 6, 70, 80], ["db/bob/1.jpg", np.array([4, 3]), 1, 2, 3, 4]])
    )
    assert [face.box for face in held(six).faces] == [(5, 6, 70, 80), (1, 2, 3, 4)]


def test_several_faces_of_a_picture_without_boxes_stay_apart_and_copies_count_once(tmp_path: Path) -> None:
    path = tmp_path / "representations_arcface.pkl"
    rows = [[3.0, 4.0], [4.0, 3.0], [3.0, 4.0], [5.0, 0.0]]
    path.write_bytes(pickle.dumps([["db/amy/1.jpg", row] for row in rows] + [["db/bob/1.jpg", [1.0, 1.0]]]))
    gallery = held(path)
    assert [(face.source, face.box[0]) for face in gallery.faces] == [
        ("amy/1.jpg", 0),
        ("amy/1.jpg", 1),
        ("amy/1.jpg", 2),
        ("bob/1.jpg", 0),
    ]
    assert gallery.copies == 1


def test_records_that_no_gallery_can_hold_are_told_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "gallery.pkl"
    records = {
        "db/amy/1.jpg": [3.0, 4.0],
        "db/bob/1.jpg": None,
        "db/bob/2.jpg": [float("nan"), 1.0],
        "db/bob/3.jpg": [0.0, 0.0],
        "db/.hidden/1.jpg": [3.0, 4.0],
        "db/bob\n/1.jpg": [3.0, 4.0],
        "": [3.0, 4.0],
        "db/eve/1.jpg": [4.0, 3.0],
    }
    path.write_bytes(pickle.dumps([{"identity": key, "embedding": value} for key, value in records.items()]))
    gallery = held(path)
    assert [face.source for face in gallery.faces] == ["amy/1.jpg", "eve/1.jpg"]
    assert gallery.empty == ("db/bob/1.jpg",)
    assert [one.identity for one in gallery.unusable] == [
        "db/bob/2.jpg",
        "db/bob/3.jpg",
        "db/.hidden/1.jpg",
        "db/bob/1.jpg",
        "",
    ]


def test_the_root_may_be_named(tmp_path: Path) -> None:
    path = tmp_path / "g.pkl"
    identities = ("D:\\x\\faces\\amy.jpg", "D:\\x\\faces\\bob.jpg", "D:\\other\\eve.jpg")
    path.write_bytes(pickle.dumps([[identity, [3.0, 4.0]] for identity in identities]))
    gallery = held(path, [("x", "faces")])
    assert [(face.person, face.source) for face in gallery.faces] == [("amy", "amy.jpg"), ("bob", "bob.jpg")]
    assert [one.reason for one in gallery.unusable] == ["it does not lie under x/faces"]
    gallery = held(path, [("x", "faces"), ("other",), ()])
    assert [(face.person, face.source) for face in gallery.faces] == [
        ("amy", "amy.jpg"), ("bob", "bob.jpg"), ("eve", "eve.jpg"),
    ]  # fmt: skip


people = st.lists(st.sampled_from(["amy", "bob", "Đorđe", "faces", "a"]), min_size=1, max_size=4, unique=True)
tops = st.sampled_from(["/data/a", "/data/b", "/srv/faces", "/home/x/faces", "C:\\d\\e\\f", "../faces"])


@given(laid_out=st.dictionaries(tops, people, min_size=1, max_size=4))
def test_a_person_is_the_folder_that_holds_the_picture_however_many_roots_there_are(
    laid_out: dict[str, list[str]],
) -> None:
    pictures = [
        f"{top}/{person}/{number}.jpg" for top, names in laid_out.items() for person in names for number in "12"
    ]
    embeddings = np.eye(len(pictures), dtype=np.float32)
    gallery = gallery_of(
        Records(pictures, [""] * len(pictures), [(0, 0, 1, 1)] * len(pictures), embeddings, frozenset())
    )
    assert [face.person for face in gallery.faces] == [picture.split("/")[-2] for picture in pictures]
    assert len({face.source for face in gallery.faces}) == len(pictures)


def test_the_end_of_the_name_tells_the_format() -> None:
    assert [format_of(f"gallery.{kind}".upper()) for kind in FORMATS] == list(FORMATS)
    for name in ("gallery", "gallery.zip", "npz", "gallery.npz.gz"):
        with pytest.raises(UnknownFormat, match=r"\.npz"):
            format_of(name)


def test_a_file_under_the_ending_of_another_format_is_told_its_own(tmp_path: Path) -> None:
    contents = {"pkl": pickle.dumps([]), "npz": saved(), "parquet": as_parquet(table()), "feather": as_feather(table())}
    for kind, other in zip(FORMATS, (*FORMATS[1:], FORMATS[0]), strict=True):
        path = tmp_path / f"g.{other}"
        path.write_bytes(contents[kind])
        with pytest.raises(GalleryError, match=f"a .{kind} file"):
            read(path)
        path.write_bytes(b"")
        with pytest.raises(GalleryError, match="it is empty"):
            read(path)


def test_without_pyarrow_parquet_and_feather_say_what_to_install() -> None:
    program = """
        import sys
        sys.modules["pyarrow"] = None
        from matchers.formats import format_of
        from matchers.errors import GalleryFileError
        format_of("g.npz"), format_of("g.pkl")
        for name in ("g.parquet", "g.feather"):
            try:
                format_of(name)
            except GalleryFileError as error:
                assert "pip install" in str(error)
            else:
                raise SystemExit(f"{name} was taken")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=60)


def test_a_full_folder_of_temporary_files_is_no_damage(tmp_path: Path) -> None:
    """The limit says that no file of more than 100 bytes can be written."""
    path = tmp_path / "g.parquet"
    path.write_bytes(as_parquet(table()))
    program = """
        import resource, sys
        from matchers.errors import StoreUnavailable
        from matchers.formats import read_records
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        try:
            with open(sys.argv[1], "rb") as file:
                read_records(file, "parquet")
        except StoreUnavailable as error:
            assert "TMPDIR" in str(error)
        else:
            raise SystemExit("it was read")
    """
    # Python would leave modules that it compiles meanwhile cut off at the limit, for good.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", textwrap.dedent(program), str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=60, env=environment)


def columns(count: int = 3) -> dict[str, Any]:
    return {
        "embedding": np.arange(1.0, 2 * count + 1).reshape(count, 2),
        "has_embedding": np.ones(count, bool),
        "identity": np.array([f"db/p{number}/1.jpg" for number in range(count)]),
        "hash": np.array(["0" * 40] * count),
        **{name: np.arange(count) for name in COLUMNS[3:]},
    }


def saved(save: Callable[..., None] = np.savez, **changed: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, **{name: value for name, value in {**columns(), **changed}.items() if value is not None})
    return buffer.getvalue()


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def array_file(header: str, data: bytes = b"") -> bytes:
    text = (header + "\n").encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def with_member(name: str, member: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(saved())) as archive:
        members = {one: archive.read(one) for one in archive.namelist()}
    return zipped({**members, f"{name}.npy": member})


def objects(canary: Path) -> Any:
    class Calls:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {canary}",)

    return np.array([Calls(), None, None], object)


def table(**changed: Any) -> pa.Table:
    raw = {**{name: value for name, value in columns().items() if name != "has_embedding"}}
    raw["embedding"] = raw["embedding"].tolist()
    return pa.table({**{name: list(value) for name, value in raw.items()}, **changed})


def as_parquet(value: pa.Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(value, buffer, **options)
    return buffer.getvalue()


def as_feather(value: pa.Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    feather.write_feather(value, buffer, **options)
    return buffer.getvalue()


def bomb() -> pa.Table:
    """A small file whose texts fill 5 GB."""
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(5_000_000, np.int8)), pa.array(["x" * 1000]))
    return pa.table(dict.fromkeys(COLUMNS, texts))


def shaped(length: object, kind: str = "<f8") -> str:
    return f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': ({length},), }}"


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


def encrypted(data: bytes) -> bytes:
    """The first member says that it is, by the lowest bit of its flags."""
    return data[:6] + bytes([data[6] | 1]) + data[7:]


def lengthened(data: bytes) -> bytes:
    """The first member says a length of 2**60, in the form for large files."""
    extra = 30 + int.from_bytes(data[26:28], "little")
    sizes, large = struct.pack("<2I", 2**32 - 1, 2**32 - 1), struct.pack("<2H2Q", 1, 16, 2**60, 2**60)
    return data[:18] + sizes + data[26:extra] + large + data[extra + len(large) :]


NPZ: dict[str, Callable[[Path], bytes]] = {
    "objects that carry a pickle": lambda c: saved(identity=objects(c)),
    "embeddings of objects": lambda c: saved(embedding=objects(c).reshape(3, 1)),
    "a pickle for an array": lambda c: with_member("identity", objects(c).dumps()),
    "a whole pickle": lambda c: objects(c).dumps(),
    "code for a header": lambda c: with_member("identity", array_file(f"__import__('os').system('touch {c}')")),
    "code in a header": lambda c: with_member("hash", array_file(shaped(f"open({str(c)!r}, 'w')", "<U4"))),
    "nested header": lambda _: with_member("hash", array_file("(" * 60_000)),
    "header longer than the array": lambda _: with_member("hash", b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1)),
    "shape of a billion": lambda _: with_member("embedding", array_file(shaped(10**9))),
    "shape beyond all numbers": lambda _: with_member("embedding", array_file(shaped("9" * 4000))),
    "a billion empty texts": lambda _: with_member("identity", array_file(shaped(10**9, "<U0"))),
    "more empty texts than fit anywhere": lambda _: with_member("hash", array_file(shaped("9" * 12, "<U0"))),
    "empty texts in two dimensions": lambda _: with_member(
        "hash", array_file(shaped(0, "<U0").replace("(0,", f"({'9' * 12}, {'9' * 12}"))
    ),
    "structured type": lambda _: saved(hash=np.zeros(3, [("a", "f8")])),
    "void type": lambda _: saved(hash=np.zeros(3, "V8")),
    "compressed": lambda _: saved(np.savez_compressed),
    "zip bomb": lambda _: zipped({"embedding.npy": array_file(shaped(2**24), bytes(2**27))}, zipfile.ZIP_DEFLATED),
    "many members": lambda _: zipped({f"{number}.npy": b"" for number in range(20_000)}),
    "other columns": lambda _: zipped({"embedding.npy": array_file(shaped(0))}),
    "column missing": lambda _: saved(hash=None),
    "columns of two lengths": lambda _: saved(identity=np.array(["db/a/1.jpg"])),
    "embeddings of one dimension": lambda _: saved(embedding=np.ones(3)),
    "embeddings too long": lambda _: saved(embedding=np.ones((3, 9000))),
    "embeddings of words": lambda _: saved(embedding=np.array([["a"], ["b"], ["c"]])),
    "boxes of fractions": lambda _: saved(target_x=np.ones(3)),
    "boxes beyond all pictures": lambda _: saved(target_x=np.full(3, 2**40)),
    "text that is no Unicode": lambda _: with_member("identity", array_file(shaped(3, "<U1"), b"\xff" * 12)),
    "cut off": lambda _: saved()[:700],
    "a bit flipped": lambda _: flipped(saved(), 200),
    "encrypted": lambda _: encrypted(saved()),
    "length beyond the file": lambda _: lengthened(saved()),
    "a text": lambda _: b"identity,embedding\n",
    "nothing": lambda _: b"",
}

PARQUET: dict[str, Callable[[Path], bytes]] = {
    "cut off": lambda _: as_parquet(table())[:300],
    "footer longer than the file": lambda _: as_parquet(table())[:-8] + struct.pack("<I", 2**31) + b"PAR1",
    "column missing": lambda _: as_parquet(table().drop_columns(["hash"])),
    "embeddings of two lengths": lambda _: as_parquet(table(embedding=[[1.0], [1.0, 2.0], [1.0, 2.0]])),
    "embeddings of words": lambda _: as_parquet(table(embedding=[["a"], ["b"], ["c"]])),
    "embedding with a hole": lambda _: as_parquet(table(embedding=[[1.0, None], [1.0, 2.0], [1.0, 2.0]])),
    "identity that is a hole": lambda _: as_parquet(table(identity=["db/a/1.jpg", None, "db/b/1.jpg"])),
    "bomb: a text in very many rows": lambda _: as_parquet(bomb(), store_schema=False),
    "a pickle": lambda c: objects(c).dumps(),
    "nothing": lambda _: b"",
}

FEATHER: dict[str, Callable[[Path], bytes]] = {
    "cut off": lambda _: as_feather(table())[:300],
    "bomb: zeros compressed": lambda _: as_feather(
        pa.table({name: pa.array(np.zeros(5_000_000)) for name in COLUMNS}), compression="zstd"
    ),
    "offsets beyond the data": lambda _: as_feather(table(), compression="uncompressed").replace(
        struct.pack("<4i", 0, 2, 4, 6), struct.pack("<4i", 0, 2, 4, 2**30)
    ),
    "column missing": lambda _: as_feather(table().drop_columns(["embedding"])),
    "nothing": lambda _: b"",
}
HOSTILE = {
    **{f"npz: {kind}": (".npz", make) for kind, make in NPZ.items()},
    **{f"parquet: {kind}": (".parquet", make) for kind, make in PARQUET.items()},
    **{f"feather: {kind}": (".feather", make) for kind, make in FEATHER.items()},
}


@pytest.mark.parametrize("kind", NPZ)
def test_hostile_npz_files_are_refused_and_nothing_is_executed(kind: str, tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "gallery.npz"
    path.write_bytes(NPZ[kind](canary))
    with pytest.raises(GalleryError):
        read(path)
    assert not canary.exists()


def test_the_canary_dies_under_numpy_itself(tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "gallery.npz"
    path.write_bytes(NPZ["objects that carry a pickle"](canary))
    dict(np.load(path, allow_pickle=True))
    assert canary.exists()


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    for suffix, data in ((".npz", saved()), (".parquet", as_parquet(table())), (".feather", as_feather(table()))):
        path = tmp_path / f"g{suffix}"
        path.write_bytes(data)
        assert [face.person for face in held(path).faces] == ["p0", "p1", "p2"]
    path = tmp_path / "empty.npz"
    path.write_bytes(
        saved(embedding=np.array([[1.0, 2.0], [0, 0], [3.0, 4.0]]), has_embedding=np.array([True, False, True]))
    )
    assert held(path).empty == ("db/p1/1.jpg",)
    path = tmp_path / "empty.parquet"
    path.write_bytes(as_parquet(table(embedding=[[1.0, 2.0], None, [3.0, 4.0]])))
    assert held(path).empty == ("db/p1/1.jpg",)


def test_hostile_files_are_refused_within_300_megabytes(tmp_path: Path) -> None:
    files, canary = tmp_path / "files", tmp_path / "canary"
    files.mkdir()
    for kind, (suffix, make) in HOSTILE.items():
        (files / f"{kind}{suffix}").write_bytes(make(canary))
    program = """
        import re, resource, sys
        from pathlib import Path
        from matchers.errors import GalleryError
        from matchers.formats import format_of, read_records
        for path in Path(sys.argv[1]).iterdir():
            try:
                with path.open("rb") as file:
                    read_records(file, format_of(path.name))
            except GalleryError:
                continue
            raise SystemExit(f"{path} was read")
        print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
        print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(files)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    assert max(map(int, result.stdout.split())) < 300_000
    assert not canary.exists()


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_damage_to_an_npz_gallery_is_an_error_or_harmless(samples: dict[str, Path], seed: int) -> None:
    damage_is_harmless(samples["npz"], seed, read_npz)


def damage_is_harmless(path: Path, seed: int, reader: Callable[[Any], Records]) -> None:
    chance = random.Random(seed)
    damaged = bytearray(path.read_bytes())
    for _ in range(chance.randrange(1, 9)):
        # Headers are few bytes among many numbers.
        place = chance.choice((chance.randrange(len(damaged)), chance.randrange(min(400, len(damaged)))))
        damaged[place] = chance.randrange(256)
    with tempfile.TemporaryFile() as file:
        file.write(damaged[: chance.choice((len(damaged), chance.randrange(len(damaged))))])
        file.seek(0)
        try:
            gallery = gallery_of(reader(file))
        except GalleryError:
            return
    assert len(gallery.faces) + len(gallery.empty) + len(gallery.unusable) + gallery.copies == 40
    assert all(abs(np.linalg.norm(face.embedding) - 1) < 1e-5 for face in gallery.faces)
