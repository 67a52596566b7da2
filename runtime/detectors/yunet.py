"""YuNet (Wu et al. 2023, Machine Intelligence Research 20), read as OpenCV's ``FaceDetectorYN`` reads it."""

from __future__ import annotations

import numpy as np

from runtime.detectors.canvas import letterbox, scale_to_fit, to_detections
from runtime.faces import Detections, ImageArray
from runtime.session import SharedSession, as_batch

STRIDES = (8, 16, 32)
MAX_ENLARGEMENT = 2.0
SCORE_THRESHOLD = 0.7
IOU_THRESHOLD = 0.3


class YuNet:
    """YuNet in a shared ONNX Runtime session. Safe from any thread, as ``cv2.FaceDetectorYN`` is not."""

    def __init__(self, session: SharedSession, score_threshold: float = SCORE_THRESHOLD) -> None:
        self.session = session
        self.card = session.card
        self.score_threshold = score_threshold

    def scale(self, width: int, height: int) -> float:
        """Canvas pixels per pixel of a picture of ``width`` and ``height``."""
        return scale_to_fit(width, height, self.card.input_size, MAX_ENLARGEMENT)

    def detect(self, image: ImageArray) -> Detections:
        """Faces of ``image`` ((h, w, 3) uint8 BGR), largest score first."""
        canvas = letterbox(image, self.card.input_size, MAX_ENLARGEMENT)
        names = [f"{part}_{stride}" for stride in STRIDES for part in ("cls", "obj", "bbox", "kps")]
        outputs = self.session.run({self.session.inputs[0]: as_batch(canvas.pixels[None], self.card)}, names)
        boxes, landmarks, scores = [], [], []
        for index, stride in enumerate(STRIDES):
            classes, objects, offsets, points = (output[0] for output in outputs[4 * index : 4 * index + 4])
            score = np.sqrt(np.clip(classes[:, 0], 0, 1) * np.clip(objects[:, 0], 0, 1))
            found = np.flatnonzero(score > self.score_threshold)
            columns = self.card.input_size[0] // stride
            cells = np.stack([found % columns, found // columns], axis=1).astype(np.float32)
            centres = (cells + offsets[found, :2]) * stride
            sizes = np.exp(offsets[found, 2:]) * stride
            boxes.append(np.concatenate([centres - sizes / 2, sizes], axis=1))
            landmarks.append((points[found].reshape(-1, 5, 2) + cells[:, None]) * stride)
            scores.append(score[found])
        faces = Detections(
            np.concatenate(boxes).astype(np.float32),
            np.concatenate(landmarks).astype(np.float32),
            np.concatenate(scores).astype(np.float32),
        )
        return to_detections(faces, scale=canvas.scale, iou_threshold=IOU_THRESHOLD, image=image)
