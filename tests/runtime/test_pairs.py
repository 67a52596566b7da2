"""LFW pairs files and picture names."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.pairs import Pair, PairsError, PictureName, list_pictures, read_pairs

TWO_FOLDS = """2\t2
Abel_Pacheco\t1\t4
Zoran_Đinđić\t2\t3
Abel_Pacheco\t1\tZoran_Đinđić\t10
Ann_Lee\t1\tBo\t2
Ann_Lee\t2\t3
Bo\t1\t2
Ann_Lee\t3\tBo\t1
Bo\t2\tAbel_Pacheco\t1
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "pairs.txt"
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize("text", [TWO_FOLDS, TWO_FOLDS.replace("\t", "  "), "\ufeff" + TWO_FOLDS.replace("\n", "\r\n")])
def test_the_format_of_lfw(tmp_path: Path, text: str) -> None:
    pairs = read_pairs(written(tmp_path, text))
    assert [(pair.fold, pair.same) for pair in pairs] == [
        (0, True), (0, True), (0, False), (0, False), (1, True), (1, True), (1, False), (1, False),
    ]  # fmt: skip
    assert pairs[0] == Pair(0, PictureName("Abel_Pacheco", 1), PictureName("Abel_Pacheco", 4))
    assert pairs[2] == Pair(0, PictureName("Abel_Pacheco", 1), PictureName("Zoran_Đinđić", 10))
    assert str(pairs[2].right) == "Zoran_Đinđić_0010"


def test_one_number_in_the_first_line_means_one_fold(tmp_path: Path) -> None:
    pairs = read_pairs(written(tmp_path, "1\nAmy\t1\t2\nAmy\t1\tBob\t1\n"))
    assert [(pair.fold, pair.same) for pair in pairs] == [(0, True), (0, False)]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "first line"),
        ("name,imagenum1\n", "first line"),
        ("0\t5\n", "first line"),
        (f"{'9' * 5000}\t5\n", "first line"),
        ("1\t2\nAmy\t1\t2\n", "announces 1 x 2 x 2 pairs and holds 1"),
        ("1\t1\nAmy\t1\t2\nAmy\t1\t2\n", "line 3"),
        ("1\t1\nAmy\tone\t2\nAmy\t1\tBob\t1\n", "line 2"),
        ("1\t1\nAmy\t1\t1\nAmy\t1\tBob\t1\n", "line 2"),
        ("1\t1\nAmy\t1\t2\nAmy\t1\tAmy\t2\n", "line 3"),
        ("1\t1\nAmy\t1\t2\n\nAmy\t1\tBob\n", "line 4"),
    ],
)
def test_a_file_in_another_format_is_refused_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(PairsError, match=complaint):
        read_pairs(written(tmp_path, text))


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PairsError, match="No such file"):
        read_pairs(tmp_path / "nothing.txt")
    (tmp_path / "pairs.txt").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(PairsError, match="UTF-8"):
        read_pairs(tmp_path / "pairs.txt")


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_text(text, "utf-8", errors="surrogatepass")
    with contextlib.suppress(PairsError):
        assert read_pairs(path)


def test_pictures_in_folders_and_flat(tmp_path: Path) -> None:
    for name in (
        "Amy/Amy_0001.jpg",
        "Amy/holiday.png",
        "Bob_Lee_0012.JPG",
        "wall.jpg",
        ".hidden_0001.jpg",
        "Amy/a.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "Eve").mkdir()
    (tmp_path / "Eve" / "Amy_0002.jpg").touch()
    found = [(p.person, p.path.relative_to(tmp_path).as_posix(), p.name) for p in list_pictures(tmp_path)]
    assert found == [
        ("Amy", "Amy/Amy_0001.jpg", PictureName("Amy", 1)),
        ("Amy", "Amy/holiday.png", None),
        ("Bob_Lee", "Bob_Lee_0012.JPG", PictureName("Bob_Lee", 12)),
        ("Eve", "Eve/Amy_0002.jpg", None),
    ]


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wall.jpg").touch()
    with pytest.raises(PairsError, match=r"Name_0001\.jpg"):
        list_pictures(tmp_path)
    with pytest.raises(PairsError, match="not a folder"):
        list_pictures(tmp_path / "nowhere")
