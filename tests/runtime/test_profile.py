from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from PIL import Image

from runtime.__main__ import main


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, models_dir: Path) -> None:
    monkeypatch.setenv("MODELS_DIR", str(models_dir))
    monkeypatch.setenv("EXECUTION_PROVIDER", "cpu")


def test_the_stages_make_up_the_whole(group_picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", str(group_picture), "--json", "--repeat", "3", "--parallel", "2", "--threads", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["width"], found["height"], found["faces"]) == (1280, 886, 6)
    assert (found["provider"], found["precision"], found["threads"]) == ("CPUExecutionProvider", "fp32", 1)
    assert [stage["name"] for stage in found["stages"]] == ["decode", "detect", "align", "embed"]
    for stage in found["stages"]:
        assert 0 < stage["least"] <= stage["median"] <= stage["most"]
    assert sum(stage["share"] for stage in found["stages"]) == pytest.approx(1)
    assert found["per_second"] > 0


def test_people_get_a_table_with_bars(group_picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", str(group_picture), "--repeat", "1", "--parallel", "0"]) == 0
    shown = capsys.readouterr().out
    for word in (
        "faces: 6, decoded in full",
        "retinaface + sface (fp32)",
        "decode",
        "detect",
        "align",
        "embed",
        "█",
        "pictures/s",
    ):
        assert word in shown
    assert "at once" not in shown


def test_a_large_photo_says_at_which_size_it_was_decoded(
    group_picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = cv2.imread(str(group_picture))
    cv2.imwrite(str(tmp_path / "large.jpg"), cv2.resize(image, (4160, 2880)))
    options = ["profile", str(tmp_path / "large.jpg"), "--repeat", "1", "--parallel", "0"]
    assert main(options) == 0
    shown = capsys.readouterr().out
    assert "4160 x 2880 pixels, faces: 6, decoded at 1/4 for the detector, at 1/2 for the crops" in shown
    assert main([*options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["factors"] == [4, 2]
    assert [stage["name"] for stage in found["stages"]] == ["decode", "detect", "align", "embed"]


@pytest.mark.parametrize("option", [["--repeat", "0"], ["--repeat", "some"], ["--parallel", "-1"]])
def test_a_number_that_is_none_is_refused_in_words(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["profile", "picture.jpg", *option])
    assert stopped.value.code == 2
    assert f"'{option[1]}' is not a whole number of at least 1" in capsys.readouterr().err


def test_what_is_no_picture_ends_with_what_to_send(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    assert main(["profile", str(tmp_path / "text.jpg")]) == 2
    assert "Send JPEG" in capsys.readouterr().err
    assert main(["profile", str(tmp_path / "none.jpg")]) == 2
    assert "none.jpg" in capsys.readouterr().err


def test_nothing_but_the_limit_is_told_of_a_picture_of_too_many_pixels(tmp_path: Path) -> None:
    Image.new("1", (10_000, 10_000)).save(tmp_path / "large.png")
    command = [sys.executable, "-m", "runtime", "profile", str(tmp_path / "large.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("The picture has 10000 x 10000 pixels.")
    assert done.stderr.count("\n") == 1


def test_a_precision_that_the_provider_lacks_says_what_to_set(
    group_picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile", str(group_picture), "--provider", "cpu", "--precision", "bf16"]) == 2
    assert "EXECUTION_PROVIDER=openvino" in capsys.readouterr().err
