"""An InsightFace pack for tests: a real SCRFD, and a network that ``insightface.model_zoo`` takes for an ArcFace."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DIMENSION = 512


def make_pack(folder: Path, detector: Path) -> Path:
    """A folder like ``buffalo_l``: detection, landmarks, age and sex, recognition."""
    folder.mkdir(parents=True)
    shutil.copy(detector, folder / "det_10g.onnx")
    save(folder / "1k3d68.onnx", side=192, dimension=204)
    save(folder / "genderage.onnx", side=96, dimension=3)
    save(folder / "w600k_r50.onnx")
    return folder


def save(path: Path, side: int = 112, dimension: int = DIMENSION, batch: str | int = "None") -> Path:
    """A network of one convolution and one matrix, weights at random."""
    random = np.random.default_rng(3)
    cells = (side // 8) ** 2 * 8
    weights = {
        "conv": random.normal(0, 0.1, (8, 3, 8, 8)),
        "matrix": random.normal(0, cells**-0.5, (cells, dimension)),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["data", "conv"], ["maps"], strides=[8, 8]),
            helper.make_node("Relu", ["maps"], ["bent"]),
            helper.make_node("Flatten", ["bent"], ["flat"]),
            helper.make_node("MatMul", ["flat", "matrix"], ["out"]),
        ],
        "pack",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [batch if batch == 1 else 1, dimension])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path
