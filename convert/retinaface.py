"""RetinaFace with a ResNet-50 as the package ``retina-face`` has it, built as an ONNX graph from its ``retinaface.h5``.

Structure and names of layers are those of ``retinaface/model/retinaface_model.py`` (retina-face 0.0.19, MIT): a
pre-activation ResNet-50, a feature pyramid of three levels, and on each a context module and heads for two anchors
(Najibi et al. 2017, "SSH"; Deng et al. 2020, arXiv:1905.00641). TensorFlow is not needed to build it; where it is
installed together with retina-face, :mod:`convert.export_retinaface` compares both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from convert.arcface import LayerWeights, are_finite
from convert.errors import WeightsError

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
"""Filters and units of each stage; the first unit of a stage but the first halves the picture."""

LEVELS = ((32, "ssh_m3_det"), (16, "ssh_m2_det"), (8, "ssh_m1_det"))
"""Strides with the names of their context modules, in the order of the outputs."""

_PYRAMID = 256
_HEADS = (("cls_score", 4), ("bbox_pred", 8), ("landmark_pred", 20))
_OUTPUTS = ("face_rpn_cls_prob", "face_rpn_bbox_pred", "face_rpn_landmark_pred")
_EPSILON = 1.9999999494757503e-05
_OPSET, _IR_VERSION = 17, 8


def layer_shapes(divisor: int = 1) -> dict[str, Shape]:
    """The layers that have weights: of a convolution the kernel's shape (h, w, in, out), of a norm (channels,).

    Args:
        divisor: of all channels, for small networks in tests.
    """
    return dict(_layers(divisor))


def _layers(divisor: int) -> Iterator[tuple[str, Shape]]:
    def part(channels: int) -> int:
        return channels // divisor

    yield "bn_data", (3,)
    yield "conv0", (7, 7, 3, part(64))
    yield "bn0", (part(64),)
    below = part(64)
    for stage, (filters, units) in enumerate(STAGES, start=1):
        middle, above = part(filters), part(4 * filters)
        for unit in range(1, units + 1):
            name = f"stage{stage}_unit{unit}"
            yield f"{name}_bn1", (below,)
            yield f"{name}_conv1", (1, 1, below, middle)
            yield f"{name}_bn2", (middle,)
            yield f"{name}_conv2", (3, 3, middle, middle)
            yield f"{name}_bn3", (middle,)
            yield f"{name}_conv3", (1, 1, middle, above)
            if unit == 1:
                yield f"{name}_sc", (1, 1, below, above)
            below = above
    yield "bn1", (below,)
    wide, half = part(_PYRAMID), part(_PYRAMID) // 2
    for name, size, channels in (
        ("ssh_c3_lateral", 1, below),
        ("ssh_c2_lateral", 1, part(STAGES[3][0])),
        ("ssh_c2_aggr", 3, wide),
        ("ssh_m1_red_conv", 1, part(STAGES[2][0])),
        ("ssh_c1_aggr", 3, wide),
    ):
        yield name, (size, size, channels, wide)
        yield f"{name}_bn", (wide,)
    for stride, module in LEVELS:
        for name, channels, filters in (
            ("conv1", wide, wide),
            ("context_conv1", wide, half),
            ("context_conv2", half, half),
            ("context_conv3_1", half, half),
            ("context_conv3_2", half, half),
        ):
            yield f"{module}_{name}", (3, 3, channels, filters)
            yield f"{module}_{name}_bn", (filters,)
        for name, filters in _HEADS:
            yield f"face_rpn_{name}_stride{stride}", (1, 1, 2 * wide, filters)


def check_weights(weights: Sequence[LayerWeights], source: str, divisor: int = 1) -> dict[str, tuple[Array, ...]]:
    """The arrays by layer.

    Raises:
        WeightsError: a layer is missing, too many, of another shape, or holds numbers that are not finite.
    """
    found = {layer.name: layer.arrays for layer in weights}
    expected = layer_shapes(divisor)
    for name, shape in expected.items():
        arrays = found.get(name)
        if arrays is None:
            raise WeightsError(f"{source} does not hold retina-face's RetinaFace: the layer {name} is missing.")
        wanted = [shape] * 4 if len(shape) == 1 else [shape, shape[-1:]][: max(len(arrays), 1)]
        given = [array.shape for array in arrays]
        if given != wanted:
            raise WeightsError(
                f"{source} does not hold retina-face's RetinaFace: the layer {name} has weights of {_listed(given)}, "
                f"{_listed(wanted)} is needed."
            )
        if not all(are_finite(array) for array in arrays):
            raise WeightsError(f"{source} holds weights that are not finite numbers (layer {name}). Get it again.")
    if extra := sorted(set(found) - set(expected)):
        raise WeightsError(f"{source} does not hold retina-face's RetinaFace: it has a layer {extra[0]} more.")
    return found


def _listed(shapes: Sequence[Shape]) -> str:
    return " and ".join(map(str, dict.fromkeys(shapes)))


def build_retinaface(weights: Mapping[str, Sequence[Array]]) -> onnx.ModelProto:
    """The network: (n, 3, h, w) float32 RGB, 0 to 255, to nine outputs, scores (n, h', w', 4), boxes (n, h', w', 8) and
    landmarks (n, h', w', 20) for each of the strides 32, 16 and 8.

    Args:
        weights: as :func:`check_weights` gives them.
    """
    graph = _Graph(weights)
    x = graph.relu(graph.conv("conv0", graph.norm("bn_data", "data"), stride=2, norm="bn0"))
    x = graph.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    lateral = {}
    for stage, (_, units) in enumerate(STAGES, start=1):
        for unit in range(1, units + 1):
            name = f"stage{stage}_unit{unit}"
            stride = 2 if unit == 1 and stage > 1 else 1
            before = graph.relu(graph.norm(f"{name}_bn1", x))
            middle = graph.relu(graph.conv(f"{name}_conv1", before, norm=f"{name}_bn2"))
            lateral[name] = middle
            inner = graph.relu(graph.conv(f"{name}_conv2", middle, stride=stride, norm=f"{name}_bn3"))
            shortcut = graph.conv(f"{name}_sc", before, stride=stride) if unit == 1 else x
            x = graph.node("Add", [graph.conv(f"{name}_conv3", inner), shortcut])
    c3 = graph.lateral("ssh_c3_lateral", graph.relu(graph.norm("bn1", x)))
    c2 = graph.merged("ssh_c2_aggr", graph.lateral("ssh_c2_lateral", lateral["stage4_unit1"]), c3)
    c1 = graph.merged("ssh_c1_aggr", graph.lateral("ssh_m1_red_conv", lateral["stage3_unit1"]), c2)
    for (stride, module), level in zip(LEVELS, (c3, c2, c1), strict=True):
        graph.heads(stride, graph.context(module, level))
    return graph.finish()


@dataclass(slots=True)
class _Graph:
    """Nodes as they are added; each method returns the name of its output."""

    weights: Mapping[str, Sequence[Array]]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)

    def node(self, operator: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        name = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: Array) -> str:
        self.constants[name] = value
        return name

    def relu(self, x: str) -> str:
        return self.node("Relu", [x])

    def norm(self, name: str, x: str) -> str:
        parts = ("gamma", "beta", "mean", "variance")
        names = [
            self.constant(f"{name}_{part}", array.astype(np.float32))
            for part, array in zip(parts, self.weights[name], strict=True)
        ]
        return self.node("BatchNormalization", [x, *names], name, epsilon=_EPSILON)

    def conv(self, name: str, x: str, stride: int = 1, norm: str = "") -> str:
        """A convolution that keeps the size but for its stride, with the norm behind it folded in."""
        kernel, *rest = (array.astype(np.float64) for array in self.weights[name])
        bias = rest[0] if rest else np.zeros(kernel.shape[3])
        if norm:
            gamma, beta, mean, variance = (array.astype(np.float64) for array in self.weights[norm])
            factor = gamma / np.sqrt(variance + _EPSILON)
            kernel, bias = kernel * factor, (bias - mean) * factor + beta
        margin = kernel.shape[0] // 2
        inputs = [
            x,
            self.constant(f"{name}_kernel", np.ascontiguousarray(kernel.transpose(3, 2, 0, 1), np.float32)),
            self.constant(f"{name}_bias", bias.astype(np.float32)),
        ]
        return self.node("Conv", inputs, name, strides=[stride, stride], pads=[margin] * 4)

    def lateral(self, name: str, x: str) -> str:
        return self.relu(self.conv(name, x, norm=f"{name}_bn"))

    def merged(self, name: str, level: str, above: str) -> str:
        """``level`` and the twice as large level above, which may be one row or column too large."""
        factors = self.constant("twice", np.array([1, 1, 2, 2], np.float32))
        larger = self.node(
            "Resize", [above, "", factors], mode="nearest", coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )  # fmt: skip
        size = self.node("Shape", [level], start=2, end=4)
        start, axes = self.constant("origin", np.zeros(2, np.int64)), self.constant("plane", np.array([2, 3], np.int64))
        cut = self.node("Slice", [larger, start, size, axes])
        return self.lateral(name, self.node("Add", [level, cut]))

    def context(self, module: str, x: str) -> str:
        def conv(name: str, inner: str) -> str:
            return self.conv(f"{module}_{name}", inner, norm=f"{module}_{name}_bn")

        first = self.relu(conv("context_conv1", x))
        second = self.relu(conv("context_conv3_1", first))
        parts = [conv("conv1", x), conv("context_conv2", first), conv("context_conv3_2", second)]
        return self.relu(self.node("Concat", parts, axis=1))

    def heads(self, stride: int, x: str) -> None:
        """Scores as probabilities: of an anchor's two channels, two apart, one is background and the other face."""
        raw = [self.conv(f"face_rpn_{name}_stride{stride}", x) for name, _ in _HEADS]
        pairs = self.node("Reshape", [raw[0], self.constant("pairs", np.array([0, 2, -1], np.int64))])
        shares = self.node("Softmax", [pairs], axis=1)
        raw[0] = self.node("Reshape", [shares, self.node("Shape", [raw[0]])])
        for name, (_, channels), value in zip(_OUTPUTS, _HEADS, raw, strict=True):
            output = self.node("Transpose", [value], f"{name}_nhwc_stride{stride}", perm=[0, 2, 3, 1])
            shape: list[str | int | None] = ["n", f"height_{stride}", f"width_{stride}", channels]
            self.outputs.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, shape))

    def finish(self) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "retinaface-resnet50",
            [helper.make_tensor_value_info("data", TensorProto.FLOAT, ["n", 3, "height", "width"])],
            self.outputs,
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
        onnx.checker.check_model(model)
        return model
