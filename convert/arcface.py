"""DeepFace's ArcFace: a ResNet-34 for faces of 112 x 112 pixels, built in Keras to take its published weights.

Structure and layer parameters are those of ``deepface/models/facial_recognition/ArcFace.py`` (DeepFace 0.0.96, MIT): a
pre-activation ResNet with parametric rectifiers, as in the ArcFace paper (Deng et al., 2019, section 3.1, "BN-Dropout-
FC-BN" at the end).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convert.errors import WeightsError
from convert.weights import open_hdf5, readable

STACKS = ((64, 3), (128, 4), (256, 6), (512, 3))
"""Filters and blocks of each stack; the first block of a stack halves the picture."""

SIDE, DIMENSION = 112, 512
_EPSILON, _MOMENTUM, _DROPOUT = 2e-5, 0.9, 0.4


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer's arrays as a file holds them."""

    name: str
    arrays: tuple[npt.NDArray[Any], ...]


def build_arcface(keras: Any, stacks: Sequence[tuple[int, int]] = STACKS, dimension: int = DIMENSION) -> Any:
    """The network, weights at random.

    Args:
        keras: the module ``tf_keras`` or ``keras``.
        stacks: other than :data:`STACKS` for small networks in tests.

    Returns:
        a Keras model, (n, 112, 112, 3) float32 to (n, dimension) float32.
    """
    layers = keras.layers

    def norm(name: str) -> Any:
        return layers.BatchNormalization(axis=-1, epsilon=_EPSILON, momentum=_MOMENTUM, name=name)

    def conv(filters: int, size: int, stride: int, name: str) -> Any:
        return layers.Conv2D(filters, size, strides=stride, use_bias=False, name=name)

    def block(x: Any, filters: int, stride: int, name: str) -> Any:
        shortcut = x
        if stride > 1:
            shortcut = norm(f"{name}_0_bn")(conv(filters, 1, stride, f"{name}_0_conv")(x))
        x = layers.ZeroPadding2D(1, name=f"{name}_1_pad")(norm(f"{name}_1_bn")(x))
        x = norm(f"{name}_2_bn")(conv(filters, 3, 1, f"{name}_1_conv")(x))
        x = layers.PReLU(shared_axes=[1, 2], name=f"{name}_1_prelu")(x)
        x = layers.ZeroPadding2D(1, name=f"{name}_2_pad")(x)
        x = norm(f"{name}_3_bn")(conv(filters, 3, stride, f"{name}_2_conv")(x))
        return layers.Add(name=f"{name}_add")([shortcut, x])

    picture = keras.Input((SIDE, SIDE, 3))
    x = conv(stacks[0][0], 3, 1, "conv1_conv")(layers.ZeroPadding2D(1, name="conv1_pad")(picture))
    x = layers.PReLU(shared_axes=[1, 2], name="conv1_prelu")(norm("conv1_bn")(x))
    for number, (filters, blocks) in enumerate(stacks, start=2):
        for index in range(1, blocks + 1):
            x = block(x, filters, 2 if index == 1 else 1, f"conv{number}_block{index}")
    x = layers.Dropout(_DROPOUT)(norm("flat_bn")(x))
    x = layers.Dense(dimension, name="dense")(layers.Flatten()(x))
    return keras.Model(picture, norm("embedding")(x), name="ArcFace")


def read_legacy_weights(path: Path) -> list[LayerWeights]:
    """The layers of a legacy Keras weights file that have weights, in the file's order.

    Raises:
        WeightsError: the file is damaged or not such a file.
    """
    found = []
    with readable(path, "Keras weights file"), open_hdf5(path) as file:
        root = file.get("model_weights", file)
        for name in map(_text, root.attrs["layer_names"]):
            group = root[name]
            arrays = tuple(np.asarray(group[_text(inner)]) for inner in group.attrs["weight_names"])
            if arrays:
                found.append(LayerWeights(name, arrays))
    return found


def read_layered_weights(path: Path, model: Any) -> list[LayerWeights]:
    """The weights of a ``.weights.h5`` file for the layers of ``model``, in the model's order; then what is left over.

    Such a file names layers by their class and a number that counts within the class: ``conv2d``, ``conv2d_1``.

    Raises:
        WeightsError: the file is damaged.
    """
    with readable(path, "Keras weights file"), open_hdf5(path) as file:
        root = file["layers"] if "layers" in file else file["_layer_checkpoint_dependencies"]
        held = {name: _arrays(group) for name, group in root.items()}
    counts: Counter[str] = Counter()
    found = []
    for layer in model.layers:
        kind = _snake(type(layer).__name__)
        name = f"{kind}_{counts[kind]}" if counts[kind] else kind
        counts[kind] += 1
        arrays = held.pop(name, ())
        if layer.weights:
            found.append(LayerWeights(name, arrays))
    return found + [LayerWeights(name, arrays) for name, arrays in held.items() if arrays]


def load_weights(model: Any, weights: Sequence[LayerWeights], source: str) -> None:
    """Put ``weights`` into ``model``, layer by layer in order, as Keras does for files without a configuration.

    Raises:
        WeightsError: a layer does not fit; the first one is named, nothing was changed.
    """
    wanted = [layer for layer in model.layers if layer.weights]
    for number, (layer, given) in enumerate(zip(wanted, weights, strict=False), start=1):
        shapes = [tuple(weight.shape) for weight in layer.weights]
        found = [array.shape for array in given.arrays]
        if shapes != found:
            raise WeightsError(
                f"{source} does not hold DeepFace's ArcFace (ResNet-34): layer {number} should be {layer.name} with "
                f"weights of {_listed(shapes)}, the file has {given.name} with {_listed(found)}."
            )
    if len(wanted) != len(weights):
        raise WeightsError(
            f"{source} does not hold DeepFace's ArcFace (ResNet-34): it has {len(weights)} layers with weights, "
            f"{len(wanted)} are needed."
        )
    if not all(are_finite(array) for given in weights for array in given.arrays):
        raise WeightsError(f"{source} holds weights that are not finite numbers. Get it again.")
    for layer, given in zip(wanted, weights, strict=True):
        layer.set_weights(list(given.arrays))


def are_finite(array: npt.NDArray[Any]) -> bool:
    """Whether an array of a file holds finite numbers and nothing else."""
    return array.dtype.kind in "fiu" and bool(np.isfinite(array).all())


def _arrays(group: Any) -> tuple[npt.NDArray[Any], ...]:
    """What a layer's group holds, by rising number."""
    held = group.get("vars", {})
    return tuple(np.asarray(held[name]) for name in sorted(held, key=int))


def _snake(name: str) -> str:
    """``PReLU`` as Keras writes it in files: ``p_re_lu``."""
    parted = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", parted).lower()


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _listed(shapes: Sequence[Sequence[int]]) -> str:
    return ", ".join("x".join(map(str, shape)) or "one number" for shape in shapes) or "nothing"
