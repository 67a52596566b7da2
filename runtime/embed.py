"""Face crops to embeddings."""

from __future__ import annotations

import numpy as np

from models.errors import CardError
from runtime.align import align_deepface, align_similarity
from runtime.faces import Crops, Detections, FloatArray, ImageArray
from runtime.providers import CUDA
from runtime.session import SharedSession, as_batch

BATCH = 4
"""Faces of one run on several cores of a CPU, where more at once are no faster each: 1 to 4, never filled up."""
GPU_BATCHES = (1, 2, 4, 8, 16, 32)
"""Batch sizes of a GPU, where one run with more costs little more; the rest of a batch is filled up. Only these few
sizes reach ONNX Runtime, whose memory arena grows with every new input shape."""
_LARGEST = GPU_BATCHES[-1]


class Embedder:
    """Turns all faces of a picture into embeddings. Safe from any thread."""

    def __init__(self, session: SharedSession) -> None:
        """Take over a session whose card says ``embedding``.

        Raises:
            CardError: the model is a detector, or asks for an alignment that is not known.
        """
        self.session = session
        self.card = session.card
        self._on_gpu = session.provider == CUDA
        if self.card.task != "embedding":
            raise CardError(f"{session.path} is a {self.card.task} model; EMBEDDER needs an embedding model.")
        if self.card.alignment == "none":
            raise CardError(f"{session.path} names no alignment; an embedder needs `similarity` or `deepface`.")

    def align(self, image: ImageArray, found: Detections) -> Crops:
        """Crops for :meth:`embed`, cut as the card says.

        Args:
            image: (h, w, 3) uint8 BGR.
            found: the faces to cut out.

        Returns:
            (n, h, w, 3) BGR, 0 to 255; uint8 for the alignment ``similarity``, float32 for ``deepface``.
        """
        if self.card.as_deepface:
            areas = found.boxes if found.areas is None else found.areas
            exact = self.card.alignment == "deepface-opencv5"
            return align_deepface(image, areas, found.landmarks, self.card.input_size, exact=exact)
        return align_similarity(image, found.landmarks, self.card.input_size, self.card.template_shift)

    def embed(self, crops: Crops) -> FloatArray:
        """Embeddings of aligned crops.

        Args:
            crops: (n, h, w, 3) uint8 or float32 BGR of the card's input size, 0 to 255; n may be 0.

        Returns:
            (n, d) float32, rows of length 1.
        """
        if self._on_gpu:
            parts = [self._run(crops[start : start + _LARGEST]) for start in range(0, len(crops), _LARGEST)]
        else:
            parts = self._run_parts(crops)
        vectors = np.concatenate([np.empty((0, self.card.dimension), np.float32), *parts])
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32)

    def _run_parts(self, crops: Crops) -> list[FloatArray]:
        """On a CPU: side by side where there is a face for every core, else in batches, one after the other."""
        cores = self.session.side_by_side
        if cores == 1 or len(crops) < cores:
            return [self._run(crops[start : start + BATCH]) for start in range(0, len(crops), BATCH)]
        # One by one: on one core a batch is no faster, and each of its faces costs memory in each of the runs.
        name = self.session.inputs[0]
        feeds = [{name: as_batch(crop[None], self.card)} for crop in crops]
        answers = self.session.run_each(feeds, self.session.outputs[:1])
        return [np.asarray(output.reshape(1, -1), np.float32) for (output,) in answers]

    def _run(self, crops: Crops) -> FloatArray:
        count = len(crops)
        padded = next(size for size in GPU_BATCHES if size >= count) if self._on_gpu else count
        if padded > count:
            crops = np.concatenate([crops, np.zeros((padded - count, *crops.shape[1:]), crops.dtype)])
        (output,) = self.session.run({self.session.inputs[0]: as_batch(crops, self.card)}, self.session.outputs[:1])
        return np.asarray(output[:count].reshape(count, -1), np.float32)
