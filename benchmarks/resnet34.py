"""DeepFace's ArcFace, ResNet-34, with random weights: the size and speed of the real one, without its licence.

python -m benchmarks.resnet34 OUT.onnx [--images DIR] [--seed N]

Weights are random; the statistics of every BatchNormalization are those of aligned faces that run through the
network, so that activations look as trained ones do and faces do not fall on one point. Likeness means nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from convert.parity import SourceNetwork
from convert.portraits import Portrait, portraits_from
from convert.repair import make_model
from convert.views import views
from convert.write import write_model
from models.card import ModelCard
from models.presets import Changes, Origin, find_preset, make_card
from models.settings import Settings
from runtime.align import align_deepface

Array = npt.NDArray[np.float32]
STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
"""Filters and blocks of each stage (deepface/models/facial_recognition/ArcFace.py)."""
OPSET, EPSILON, FACES = 17, 2e-5, 24


class Network:
    """The graph as it grows; ``statistics`` is None while they are still to be found.

    Args:
        seed: of the random weights.
        statistics: mean and variance of each BatchNormalization, by name.
    """

    def __init__(self, seed: int, statistics: dict[str, Array] | None) -> None:
        self.random = np.random.default_rng(seed)
        self.statistics = statistics
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.found: list[str] = []

    def constant(self, name: str, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def add(self, operator: str, name: str, *inputs: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def conv(self, name: str, x: str, before: int, after: int, *, size: int, stride: int) -> str:
        spread = np.sqrt(2 / (before * size * size))
        weight = self.constant(f"{name}.weight", self.random.normal(0, spread, (after, before, size, size)))
        return self.add("Conv", name, x, weight, strides=[stride] * 2, pads=[size // 2] * 4, kernel_shape=[size] * 2)

    def norm(self, name: str, x: str, channels: int, axes: tuple[int, ...] = (0, 2, 3)) -> str:
        gamma = self.constant(f"{name}.gamma", self.random.uniform(0.7, 1.3, channels))
        beta = self.constant(f"{name}.beta", self.random.normal(0, 0.2, channels))
        mean, variance = f"{name}.mean", f"{name}.variance"
        if self.statistics is None:
            self.found += [mean, variance]
            self.add("ReduceMean", mean, x, axes=axes, keepdims=0)
            self.add("ReduceMean", f"{name}.kept", x, axes=axes)
            self.add("Sub", f"{name}.centred", x, f"{name}.kept")
            self.add("Mul", f"{name}.squares", f"{name}.centred", f"{name}.centred")
            self.add("ReduceMean", variance, f"{name}.squares", axes=axes, keepdims=0)
        else:
            self.constant(mean, self.statistics[mean])
            self.constant(variance, self.statistics[variance])
        return self.add("BatchNormalization", name, x, gamma, beta, mean, variance, epsilon=EPSILON)

    def prelu(self, name: str, x: str, channels: int) -> str:
        slope = self.constant(f"{name}.slope", self.random.uniform(0.05, 0.4, (channels, 1, 1)))
        return self.add("PRelu", name, x, slope)

    def block(self, name: str, x: str, before: int, filters: int, stride: int) -> str:
        shortcut = x
        if before != filters or stride != 1:
            shortcut = self.norm(
                f"{name}_0_bn", self.conv(f"{name}_0_conv", x, before, filters, size=1, stride=stride), filters
            )
        y = self.conv(f"{name}_1_conv", self.norm(f"{name}_1_bn", x, before), before, filters, size=3, stride=1)
        y = self.prelu(f"{name}_1_prelu", self.norm(f"{name}_2_bn", y, filters), filters)
        y = self.norm(f"{name}_3_bn", self.conv(f"{name}_2_conv", y, filters, filters, size=3, stride=stride), filters)
        return self.add("Add", f"{name}_add", shortcut, y)

    def build(self) -> onnx.ModelProto:
        """(batch, 112, 112, 3) float32, as DeepFace feeds it, to (batch, 512) float32."""
        x = self.conv(
            "conv1_conv", self.add("Transpose", "planes", "input", perm=[0, 3, 1, 2]), 3, 64, size=3, stride=1
        )
        x = self.prelu("conv1_prelu", self.norm("conv1_bn", x, 64), 64)
        before = 64
        for stage, (filters, blocks) in enumerate(STAGES, start=2):
            for block in range(1, blocks + 1):
                # The first block of the first stage has a convolution in its shortcut as well: its stride is 2.
                x = self.block(f"conv{stage}_block{block}", x, before, filters, 2 if block == 1 else 1)
                before = filters
        x = self.add("Flatten", "flat", self.norm("top_bn", x, 512))
        width = 512 * 7 * 7
        weight = self.constant("dense.weight", self.random.normal(0, np.sqrt(1 / width), (512, width)))
        bias = self.constant("dense.bias", self.random.normal(0, 0.05, 512))
        self.norm("embedding", self.add("Gemm", "dense", x, weight, bias, transB=1), 512, axes=(0,))
        return self._model()

    def _model(self) -> onnx.ModelProto:
        outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 512])]
        outputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in self.found]
        inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 112, 112, 3])]
        graph = helper.make_graph(self.nodes, "arcface_resnet34", inputs, outputs, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def random_resnet34(pictures: Array, seed: int = 0) -> onnx.ModelProto:
    """The network with statistics of ``pictures``: (n, 112, 112, 3) float32, as the network is fed."""
    search = Network(seed, None)
    session = ort.InferenceSession(search.build().SerializeToString(), providers=["CPUExecutionProvider"])
    statistics = dict(zip(search.found, session.run(search.found, {"input": pictures}), strict=True))
    return Network(seed, statistics).build()


def write_resnet34(output: Path, portraits: Sequence[Portrait], seed: int = 0) -> ModelCard:
    """Write the network as the service loads it: repaired, compared with its source, with a card."""
    faces = views(portraits, max(FACES, len(portraits)))[:FACES]
    crops = [align_deepface(face.image, face.face.boxes, face.face.landmarks) for face in faces]
    source = random_resnet34(np.concatenate(crops) / np.float32(255), seed).SerializeToString()
    origin = Origin(f"random weights, seed {seed}", hashlib.sha256(source).hexdigest())
    changes = Changes(licence="none: random weights", notes="Random weights, for measurements: likeness means nothing.")
    card = make_card(find_preset("deepface-arcface"), changes, output.stem, SourceNetwork(source).signature(), origin)
    write_model(output, make_model(source, card, {}))
    return card


def main() -> int:
    """Write the file that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, metavar="OUT.onnx")
    parser.add_argument("--images", type=Path, metavar="DIR", help="faces (default: those that packages ship)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write_resnet34(options.output, portraits_from(options.images, Settings().models_path, print), options.seed)
    print(f"{options.output}: {options.output.stat().st_size / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
