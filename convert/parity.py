"""Whether two networks compute the same, measured by running both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from convert.errors import ParityError, RepairError
from convert.passes import drop_single_blocks
from models.card import ModelCard
from runtime.session import SharedSession

Array = npt.NDArray[Any]
MIN_COSINE = 0.99999
EMBEDDER_BATCHES, DETECTOR_BATCHES = (1, 3, 8), (1, 1)
DETECTOR_SIDE = 320


@dataclass(frozen=True, slots=True)
class Parity:
    """How near two networks' outputs are.

    Attributes:
        cosine_min: smallest cosine between an output of one picture and its counterpart.
        max_abs_diff: largest difference of two numbers.
        max_abs_value: largest number of the source's outputs, to read ``max_abs_diff`` by.
        pictures: how many were compared.
    """

    cosine_min: float
    max_abs_diff: float
    max_abs_value: float
    pictures: int

    def require(self, minimum: float = MIN_COSINE) -> None:
        """Raise ParityError unless ``cosine_min`` reaches ``minimum``."""
        if not self.cosine_min >= minimum:
            raise ParityError(
                f"The repaired network differs from its source: cosine {self.cosine_min:.7f}, "
                f"{minimum} is needed (largest difference {self.max_abs_diff:.3g}). Nothing was written."
            )

    def figures(self) -> dict[str, float]:
        """For the card."""
        return {
            "cosine_min": self.cosine_min,
            "max_abs_diff": self.max_abs_diff,
            "max_abs_value": self.max_abs_value,
            "pictures": float(self.pictures),
        }


class SourceNetwork:
    """A network as its publisher ships it, run one picture at a time by ONNX Runtime alone.

    Inputs that no node reads (stale weights) get zeros: ONNX Runtime asks for them and does not use them.
    """

    def __init__(self, data: bytes) -> None:
        """Raises RepairError when the bytes are no ONNX network with one input that is read."""
        try:
            model = drop_single_blocks(onnx.load_model_from_string(data))
            self._session = ort.InferenceSession(
                model.SerializeToString(), _quiet(), providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise RepairError(f"The source is no ONNX network: {str(error).splitlines()[0][:200]}.") from error
        read = {name for node in model.graph.node for name in node.input}
        live = [node for node in self._session.get_inputs() if node.name in read]
        if len(live) != 1:
            raise RepairError(f"The source has {len(live)} inputs that are read, not one.")
        self.input = live[0].name
        self._stale = {
            node.name: np.zeros([size if isinstance(size, int) else 1 for size in node.shape], np.float32)
            for node in self._session.get_inputs()
            if node.name not in read
        }

    def signature(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The inputs that are read, and the outputs: name, type and shape."""
        inputs = [node for node in self._session.get_inputs() if node.name == self.input]
        nodes = (inputs, self._session.get_outputs())
        described = [[{"name": n.name, "type": n.type, "shape": list(n.shape)} for n in part] for part in nodes]
        return described[0], described[1]

    def run(self, picture: Array, outputs: Sequence[str]) -> list[Array]:
        """Outputs for one picture, (1, 3, h, w) float32."""
        results: list[Array] = self._session.run(list(outputs), {self.input: picture, **self._stale})
        return results


def compare_networks(source: SourceNetwork, repaired: Path, card: ModelCard, seed: int = 0) -> Parity:
    """Run both on random pictures, the repaired one in batches through the runtime that will serve it.

    Raises:
        ModelError: the repaired file cannot be opened by the runtime.
        ParityError: the repaired network does not take a batch, or an output has another shape.
    """
    session = SharedSession(repaired)
    random = np.random.default_rng(seed)
    found = []
    for batch in EMBEDDER_BATCHES if card.task == "embedding" else DETECTOR_BATCHES:
        pictures = random.integers(0, 256, (batch, *_picture_shape(card))).astype(np.float32)
        try:
            results = session.run({session.inputs[0]: pictures})
        except Exception as error:
            raise ParityError(
                f"The repaired network fails on a batch of {batch}: {str(error).splitlines()[0][:200]}"
            ) from error
        expected = [source.run(picture[None], session.outputs) for picture in pictures]
        found.append(compare_outputs([np.concatenate(parts) for parts in zip(*expected, strict=True)], results))
    return _worst(found, sum(parity.pictures for parity in found))


def compare_outputs(expected: Sequence[Array], actual: Sequence[Array]) -> Parity:
    """Compare outputs of two networks; the first axis of each is the picture.

    Raises:
        ParityError: numbers or shapes of outputs differ.
    """
    shapes = [value.shape for value in expected], [value.shape for value in actual]
    if shapes[0] != shapes[1]:
        raise ParityError(f"The repaired network's outputs have the shapes {shapes[1]}, its source's {shapes[0]}.")
    found = [_compare(one, other) for one, other in zip(expected, actual, strict=True)]
    return _worst(found, len(expected[0]))


def _compare(expected: Array, actual: Array) -> Parity:
    one, other = (value.reshape(len(value), -1).astype(np.float64) for value in (expected, actual))
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    products = (one * other).sum(axis=1)
    # Two rows of zeros are equal, though their cosine is not defined.
    cosines = np.where((one == other).all(axis=1), 1.0, products / np.where(lengths == 0, 1.0, lengths))
    return Parity(
        float(np.minimum(cosines, 1.0).min()), float(np.abs(one - other).max()), float(np.abs(one).max()), len(one)
    )


def _worst(found: Sequence[Parity], pictures: int) -> Parity:
    """NumPy's minimum and maximum, unlike Python's, hand a NaN on."""
    return Parity(
        float(np.min([parity.cosine_min for parity in found])),
        float(np.max([parity.max_abs_diff for parity in found])),
        float(np.max([parity.max_abs_value for parity in found])),
        pictures,
    )


def _picture_shape(card: ModelCard) -> tuple[int, int, int]:
    width, height = card.input_size if card.input_size != (0, 0) else (DETECTOR_SIDE, DETECTOR_SIDE - 64)
    return (3, height, width) if card.layout == "NCHW" else (height, width, 3)


def _quiet() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return options
