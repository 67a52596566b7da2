"""``python -m matchers evaluate``: figures of real faces, a report, and a threshold for a domain."""

from __future__ import annotations

import json
import re
import shutil
import stat
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from matchers.__main__ import main
from matchers.base import GalleryFace
from matchers.evaluation import EvaluationError, Plan, evaluate
from matchers.gallery import PklStore
from matchers.preferences import open_preferences
from matchers.recommendation import recommend
from models.settings import Settings
from runtime.engine import FaceEngine

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("MODELS_DIR", str(models_dir))
    monkeypatch.setenv("VECTOR_DB_ENABLED", "false")
    monkeypatch.setenv("EXECUTION_PROVIDER", "cpu")

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def lfw(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five people with five tight grey pictures each, named as LFW names them, and ten folds of pairs.

    One picture that the pairs name is not there, one shows a wall.
    """
    folder = tmp_path_factory.mktemp("lfw")
    people = sorted(path.name for path in (shared / "faces" / "bbt").iterdir())[:5]
    for person in people:
        (folder / person).mkdir()
        for number, path in enumerate(sorted((shared / "faces" / "bbt" / person).iterdir()), start=1):
            grey = cv2.cvtColor(cv2.imread(str(path))[20:140, 25:125], cv2.COLOR_BGR2GRAY)
            cv2.imwrite(str(folder / person / f"{person}_{number:04d}.png"), grey)
    genuine = [f"{person}\t{a}\t{b}" for person in people for a, b in combinations(range(1, 6), 2)]
    impostor = [f"{a}\t{number}\t{b}\t{number}" for a, b in combinations(people, 2) for number in range(1, 6)]
    lines = ["10\t5"]
    for fold in range(10):
        lines += genuine[fold::10] + impostor[fold::10]
    (folder / "pairs.txt").write_text("\n".join(lines) + "\n")
    (folder / people[0] / f"{people[0]}_0005.png").unlink()
    cv2.imwrite(str(folder / people[1] / f"{people[1]}_0005.png"), np.full((80, 80), 90, np.uint8))
    return folder


def test_pairs_give_figures_and_a_report_that_asks_nothing_of_any_network(run: Run, lfw: Path, tmp_path: Path) -> None:
    status, out, _ = run("evaluate", "--images", lfw, "--pairs", lfw / "pairs.txt", "--report", "r", "--json")
    result: dict[str, Any] = json.loads(out)
    assert status == 0
    pictures, found = result["pictures"], result["verification"]
    assert (pictures["read"], pictures["used"], len(pictures["missing"])) == (24, 23, 1)
    assert list(pictures["problems"].values()) == ["No face was found, with a border neither."]
    # Each of the two pictures is in 4 genuine and 4 impostor pairs; one of these 16 pairs is of both.
    assert (found["missing"], found["failed"]) == (8, 7)
    assert (found["genuine"], found["impostor"]) == (42, 43)
    assert len(found["folds"]["accuracies"]) == 10
    assert found["accuracy"] > 0.95
    assert found["accuracy_all"] == pytest.approx(found["accuracy"] - 7 / 92, abs=0.02)
    assert found["equal_error_rate"]["far"] < 0.05
    assert found["points"] == {"0.01": None, "0.001": None}

    html = (tmp_path / "r" / "report.html").read_text()
    assert json.loads((tmp_path / "r" / "report.json").read_text())["verification"] == found
    assert not re.search(r"https?:|//[a-z]|<script|<link|@import|srcset|xmlns", html)
    assert all(address.startswith(("#", "data:")) for address in re.findall(r'(?:src|href)="([^"]+)', html))
    assert html.count("<svg ") == 2
    assert f"{found['accuracy']:.2%}" in html
    assert stat.S_IMODE((tmp_path / "r").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "r").iterdir()} == {0o600}


def test_identification_with_unknown_people(run: Run, lfw: Path, tmp_path: Path) -> None:
    status, out, _ = run("evaluate", "--images", lfw, "--identification", "--report", "r")
    found = json.loads((tmp_path / "r" / "report.json").read_text())["identification"]
    assert status == 0
    assert "too few unknown probes" in out
    assert (found["enrolled"], found["splits"]) == (4, 10)
    assert found["rank1"][0] > 0.9
    assert found["rank5"][0] == 1
    assert found["fnir"] is None
    assert found["fpir_configured"][0] < 0.3


def test_a_threshold_is_recommended_only_where_the_pairs_show_it_and_then_written(
    run: Run, lfw: Path, engine: FaceEngine, tmp_path: Path
) -> None:
    card = engine.embedder_card
    settings = Settings(_env_file=None, data_dir=tmp_path / "data")
    store = PklStore(tmp_path / "data" / "galleries", card, engine.detector_card.name)
    row = np.eye(1, card.dimension, dtype=np.float32)[0]
    store.apply("office", [GalleryFace("amy", "amy/1.png", "", row, (1, 1, 9, 9))], ())
    asked = ("evaluate", "--images", lfw, "--domain", "office", "--write-threshold", "--report", "r")

    status, out, _ = run(*asked, "--fmr", "1e-4")
    assert status == 1
    assert "No threshold" in out
    assert open_preferences(settings).get("office").threshold(card) is None

    status, out, _ = run(*asked, "--fmr", "0.02", "--json")
    result = json.loads(out)
    recommended = result["recommendation"]
    assert status == 0
    assert (recommended["impostor_pairs"], recommended["false_matches"]) == (23 * 22 // 2 - 42, 4)
    assert not recommended["well_supported"]
    assert "known only roughly" in recommended["statement"]
    assert result["written"] == {"domain": "office", "before": card.threshold, "after": recommended["threshold"]}
    assert open_preferences(settings).get("office").threshold(card) == recommended["threshold"]

    status, _, err = run(
        "evaluate", "--images", lfw, "--domain", "nowhere", "--fmr", "0.1", "--write-threshold", "--report", "r"
    )
    assert status == 2
    assert "there is no domain 'nowhere'" in err


def test_a_pgvector_that_cannot_be_opened_is_no_unknown_domain(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "images").mkdir()
    monkeypatch.setenv("VECTOR_DB_ENABLED", "true")
    monkeypatch.setenv("DATABASE_URL", "nonsense")
    asked = ("evaluate", "--images", "images", "--fmr", "0.1", "--domain", "office", "--write-threshold")
    _, _, err = run(*asked, "--report", "r")
    assert "DATABASE_URL must look like" in err.splitlines()[-1]


def test_a_recommendation_is_what_a_loop_finds() -> None:
    random = np.random.default_rng(3)
    rows = random.standard_normal((60, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels = [f"p{index % 20}" for index in range(60)]
    found = recommend(rows, labels, 0.1)
    impostor = [1 - float(rows[a] @ rows[b]) for a, b in combinations(range(60), 2) if labels[a] != labels[b]]
    genuine = [1 - float(rows[a] @ rows[b]) for a, b in combinations(range(60), 2) if labels[a] == labels[b]]
    assert found.threshold is not None
    assert found.impostor_pairs == len(impostor)
    assert found.false_matches == sum(d <= found.threshold for d in impostor) == 171
    assert found.true_matches == pytest.approx(np.mean([d <= found.threshold for d in genuine]))
    assert not found.well_supported
    assert "so few people" in found.statement()
    assert recommend(rows, [str(index) for index in range(60)], 0.1).well_supported
    assert 0.1 < found.fmr_at_most < 0.12
    assert recommend(rows[:1], labels[:1], 0.1).threshold is None


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "say what to measure"),
        (("--write-threshold", "--fmr", "0.1"), "needs --fmr RATE and --domain D"),
        (("--identification", "--seed", "-1"), "--seed"),
        (("--pairs", "nowhere.txt"), "nowhere.txt cannot be read"),
        (("--identification",), "at least three people"),
    ],
)
def test_wrong_input_is_one_clear_line(
    run: Run, tmp_path: Path, group_picture: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    (tmp_path / "images" / "amy").mkdir(parents=True)
    (tmp_path / "images" / "amy" / "1.jpg").write_bytes(group_picture.read_bytes())
    status, out, err = run("evaluate", "--images", "images", "--report", "r", *arguments)
    assert (status, out) == (2, "")
    assert complaint in err
    assert err.splitlines()[-1].startswith("matchers: ")


def test_pairs_of_other_pictures_are_no_figures(engine: FaceEngine, lfw: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("1\nzoe 1 2\nzoe 1 eve 2\n")
    with pytest.raises(EvaluationError, match="2 name a picture that is not there"):
        evaluate(engine, Plan(lfw, tmp_path / "pairs.txt", False, None), 0.5, time.perf_counter)


def test_a_fold_of_failed_pairs_alone_counts_as_wrong(engine: FaceEngine, lfw: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(lfw, images)
    (images / "zoe").mkdir()
    for number in (1, 2):
        cv2.imwrite(str(images / "zoe" / f"zoe_000{number}.png"), np.zeros((112, 112, 3), np.uint8))
    names = sorted({path.stem.rpartition("_")[0] for path in lfw.rglob("*.*") if path.stem.endswith("_0002")})
    amy, bob = names[:2]
    one = f"{amy}\t1\t2\n{amy}\t1\t{bob}\t1\n"
    (tmp_path / "one.txt").write_text(f"1\n{one}")
    (tmp_path / "two.txt").write_text(f"2\t1\n{one}zoe\t1\t2\nzoe\t1\t{bob}\t1\n")
    alone, both = (
        evaluate(engine, Plan(images, tmp_path / name, False, None), 0.5, time.perf_counter).verification
        for name in ("one.txt", "two.txt")
    )
    assert alone is not None
    assert both is not None
    assert (both.failed, both.genuine, both.impostor) == (2, 1, 1)
    assert both.accuracy_all == pytest.approx(alone.accuracy_all / 2)
