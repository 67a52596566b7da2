"""A small RetinaFace of the same structure as retina-face's, weights at random, for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from convert.arcface import LayerWeights
from convert.repair import with_card
from convert.retinaface import build_retinaface, check_weights, layer_shapes
from models.presets import Changes, Origin, find_preset, make_card
from models.verify import signature

DIVISOR = 16


def random_weights(divisor: int = DIVISOR) -> list[LayerWeights]:
    """Weights with which a few anchors of the middle level count as faces."""
    random = np.random.default_rng(2)
    layers = []
    for name, shape in layer_shapes(divisor).items():
        if len(shape) == 1:
            arrays = [np.ones(shape), np.zeros(shape), np.zeros(shape), np.ones(shape)]
            if name == "bn_data":
                arrays[2:] = [np.full(shape, 127.0), np.full(shape, 60.0**2)]
            # A residual network doubles its variance about every unit.
            if name.endswith("bn1"):
                arrays[3] = np.full(shape, 4.0)
        else:
            arrays = [random.normal(0, (2 / np.prod(shape[:3])) ** 0.5, shape)]
            if name.startswith("face_rpn_cls"):
                # Flat black, of which there is much, must stay below the threshold, and little else above it.
                arrays = [arrays[0] * (-1 if name.endswith("16") else 0), np.array([0.0, 0, -1.15, -1.15])]
            elif name.startswith("face_rpn"):
                arrays = [arrays[0] * 0.2, np.zeros(shape[3])]
            elif name.startswith("ssh"):
                arrays.append(np.zeros(shape[3]))
        layers.append(LayerWeights(name, tuple(array.astype(np.float32) for array in arrays)))
    return layers


def save_small(path: Path, divisor: int = DIVISOR) -> Path:
    """The network as ``convert export`` writes it, with a card; with ``divisor`` 1 as large as the real one."""
    model = build_retinaface(check_weights(random_weights(divisor), "small", divisor))
    path.write_bytes(model.SerializeToString())
    preset = replace(find_preset("deepface-retinaface"), layout="NCHW")
    card = make_card(preset, Changes(), path.stem, signature(path), Origin("small.h5", "0" * 64))
    path.write_bytes(with_card(model, card))
    return path
