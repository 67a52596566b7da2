"""Face crops to embeddings."""

from __future__ import annotations

import numpy as np

from models.errors import CardError
from runtime.align import align_similarity
from runtime.faces import FloatArray, ImageArray
from runtime.session import SharedSession, as_batch

BATCH_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Only these batch sizes reach ONNX Runtime, whose memory arena grows with every new input shape."""


class Embedder:
    """Turns all faces of a picture into embeddings in one batch. Safe from any thread."""

    def __init__(self, session: SharedSession) -> None:
        """Take over a session whose card says ``embedding``.

        Raises:
            CardError: the model is a detector, or asks for an alignment that is not known.
        """
        self.session = session
        self.card = session.card
        if self.card.task != "embedding":
            raise CardError(f"{session.path} is a {self.card.task} model; EMBEDDER needs an embedding model.")
        if self.card.alignment != "similarity":
            raise CardError(f"{session.path} asks for alignment {self.card.alignment!r}; only `similarity` is known.")

    def align(self, image: ImageArray, landmarks: FloatArray) -> ImageArray:
        """Crops for :meth:`embed`: (n, h, w, 3) uint8 BGR from (h, w, 3) uint8 BGR and (n, 5, 2) float32 pixels."""
        return align_similarity(image, landmarks, self.card.input_size, self.card.template_shift)

    def embed(self, crops: ImageArray) -> FloatArray:
        """Embeddings of aligned crops.

        Args:
            crops: (n, h, w, 3) uint8 BGR of the card's input size; n may be 0.

        Returns:
            (n, d) float32, rows of length 1.
        """
        vectors = np.empty((len(crops), self.card.dimension), np.float32)
        largest = BATCH_SIZES[-1]
        for start in range(0, len(crops), largest):
            part = crops[start : start + largest]
            vectors[start : start + len(part)] = self._run(part)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32)

    def _run(self, crops: ImageArray) -> FloatArray:
        count = len(crops)
        padded = next(size for size in BATCH_SIZES if size >= count)
        if padded > count:
            crops = np.concatenate([crops, np.zeros((padded - count, *crops.shape[1:]), np.uint8)])
        (output,) = self.session.run({self.session.inputs[0]: as_batch(crops, self.card)}, self.session.outputs[:1])
        return np.asarray(output[:count].reshape(count, -1), np.float32)
