from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime.engine import FaceEngine
from runtime.pair import open_pair
from runtime.providers import CPU, SessionOptions

RESIDENT = """
import sys
from pathlib import Path
import psutil
from runtime.memory import return_memory
from runtime.engine import FaceEngine
from runtime.pair import open_pair
from runtime.providers import CPU, SessionOptions, create_session

def resident():
    return_memory()
    return psutil.Process().memory_info().rss

path, options = Path(sys.argv[1]), SessionOptions()
open_pair(Path(sys.argv[2]), options)
before = resident()
kept = open_pair(path, options) if sys.argv[3] == "pair" else [create_session(path, CPU, options) for _ in range(2)]
print(resident() - before)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolution and a matrix product, 40 MB of weights."""
    random = np.random.default_rng(0)
    weights = {
        "kernel": random.standard_normal((256, 256, 3, 3), np.float32),
        "matrix": random.standard_normal((256 * 49, 600), np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("Gemm", ["f", "matrix"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 256, 7, 7])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 600])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"kept": "yes"})
    path = tmp_path_factory.mktemp("pair") / "large.onnx"
    onnx.save(model, path)
    return path


def resident(path: Path, small: Path, how: str) -> int:
    command = [sys.executable, "-c", RESIDENT, str(path), str(small), how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)


def test_weights_are_in_memory_once(large: Path, models_dir: Path) -> None:
    size, small = large.stat().st_size, models_dir / "yunet.onnx"
    assert resident(large, small, "pair") < 1.3 * size
    assert resident(large, small, "apart") > 1.7 * size


@pytest.mark.parametrize("name", ["sface", "retinaface", "yunet"])
def test_both_compute_what_the_file_says(models_dir: Path, name: str) -> None:
    path = models_dir / f"{name}.onnx"
    plain = ort.InferenceSession(path, providers=[CPU])
    pair = open_pair(path, SessionOptions())
    shape = [length if isinstance(length, int) else 320 for length in plain.get_inputs()[0].shape[1:]]
    feeds = {plain.get_inputs()[0].name: np.random.default_rng(0).uniform(-1, 1, (1, *shape)).astype(np.float32)}
    expected = plain.run(None, feeds)
    for session in (pair.light, pair.heavy):
        for output, right in zip(session.run(None, feeds), expected, strict=True):
            assert np.allclose(output, right, rtol=1e-4, atol=1e-4)


def test_what_the_file_says_about_itself_is_kept(large: Path) -> None:
    pair = open_pair(large, SessionOptions())
    assert pair.weights
    for session in (pair.light, pair.heavy):
        assert session.get_modelmeta().custom_metadata_map["kept"] == "yes"
        assert [node.name for node in session.get_inputs()] == ["x"]


def test_a_full_disk_costs_memory_and_time_but_no_start(models_dir: Path, engine: FaceEngine) -> None:
    """The default pack; the limit says that no file of more than 100 kB can be written."""
    crops = np.random.default_rng(0).integers(0, 255, (2, 112, 112, 3)).astype(np.uint8)
    program = (
        "import resource, signal, sys\nimport numpy as np\n"
        "from models.settings import Settings\nfrom runtime.engine import open_engine\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "sys.dont_write_bytecode = True\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "engine = open_engine(Settings(_env_file=None, models_dir=sys.argv[1], execution_provider='cpu'))\n"
        f"crops = np.frombuffer(sys.stdin.buffer.read(), np.uint8).reshape({crops.shape})\n"
        "sys.stdout.buffer.write(engine.embedder.embed(crops).tobytes())\n"
    )
    command = [sys.executable, "-c", program, str(models_dir)]
    ran = subprocess.run(command, input=crops.tobytes(), capture_output=True, check=True)
    embeddings = np.frombuffer(ran.stdout, np.float32).reshape(2, -1)
    assert (embeddings * engine.embedder.embed(crops)).sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert b"sface.onnx runs slower than it could" in ran.stderr
