"""RetinaFace with a MobileNet-0.25 backbone (Deng et al. 2020, arXiv:1905.00641; weights of Pytorch_Retinaface)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from runtime.detectors.canvas import Size, choose_canvas, letterbox, scale_to_fit, to_detections
from runtime.faces import Detections, FloatArray, ImageArray
from runtime.session import SharedSession, as_batch

CANVASES: tuple[Size, ...] = ((320, 320), (640, 480), (480, 640), (640, 640))
MAX_ENLARGEMENT = 2.0
SCORE_THRESHOLD = 0.8
IOU_THRESHOLD = 0.4

_PRIORS = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))
_CENTRE_VARIANCE = 0.1
_SIZE_VARIANCE = 0.2


@lru_cache(maxsize=16)
def priors(size: Size) -> FloatArray:
    """Anchor boxes of a canvas, in the order of the network's outputs.

    Args:
        size: width and height of the canvas in pixels.

    Returns:
        (n, 4) float32, pixels: centre x, centre y, width, height.
    """
    width, height = size
    parts = []
    for stride, sides in _PRIORS:
        columns, rows = -(-width // stride), -(-height // stride)
        centres = (np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 1, 2) + 0.5) * stride
        part = np.empty((columns * rows, len(sides), 4), np.float32)
        part[:, :, :2] = centres
        part[:, :, 2:] = np.asarray(sides, np.float32)[None, :, None]
        parts.append(part.reshape(-1, 4))
    result = np.concatenate(parts)
    result.setflags(write=False)
    return result


def decode_boxes(offsets: FloatArray, anchors: FloatArray) -> FloatArray:
    """Network offsets to boxes: (n, 4) and (n, 4) float32 to (n, 4) float32, x, y, width, height in pixels."""
    sizes = anchors[:, 2:] * np.exp(offsets[:, 2:] * _SIZE_VARIANCE)
    centres = anchors[:, :2] + offsets[:, :2] * _CENTRE_VARIANCE * anchors[:, 2:]
    return np.concatenate([centres - sizes / 2, sizes], axis=1)


def decode_landmarks(offsets: FloatArray, anchors: FloatArray) -> FloatArray:
    """Network offsets to landmarks: (n, 10) and (n, 4) float32 to (n, 5, 2) float32, pixels, x then y."""
    points = offsets.reshape(-1, 5, 2) * _CENTRE_VARIANCE * anchors[:, None, 2:] + anchors[:, None, :2]
    return np.asarray(points, np.float32)


class RetinaFace:
    """RetinaFace on a few fixed canvases. Safe from any thread."""

    def __init__(self, session: SharedSession, score_threshold: float = SCORE_THRESHOLD) -> None:
        self.session = session
        self.card = session.card
        self.score_threshold = score_threshold

    def scale(self, width: int, height: int) -> float:
        """Canvas pixels per pixel of a picture of ``width`` and ``height``."""
        return scale_to_fit(width, height, _canvas_for(width, height), MAX_ENLARGEMENT)

    def detect(self, image: ImageArray) -> Detections:
        """Faces of ``image`` ((h, w, 3) uint8 BGR), largest score first."""
        size = _canvas_for(image.shape[1], image.shape[0])
        canvas = letterbox(image, size, MAX_ENLARGEMENT)
        outputs = self.session.run(
            {self.session.inputs[0]: as_batch(canvas.pixels[None], self.card)}, ("loc", "conf", "landmarks")
        )
        offsets, confidences, points = (output[0] for output in outputs)
        scores = confidences[:, 1]
        found = np.flatnonzero(scores > self.score_threshold)
        anchors = priors(size)[found]
        faces = Detections(
            decode_boxes(offsets[found], anchors), decode_landmarks(points[found], anchors), scores[found]
        )
        return to_detections(faces, scale=canvas.scale, iou_threshold=IOU_THRESHOLD, image=image)


def _canvas_for(width: int, height: int) -> Size:
    return choose_canvas(width, height, CANVASES, MAX_ENLARGEMENT)
