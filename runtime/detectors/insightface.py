"""SCRFD and RetinaFace networks of InsightFace packs, read by InsightFace's own code over our shared session.

The package is imported when the first such detector is opened: it declares a dependency on an OpenCV with a window
system, so it is installed with ``--no-deps`` and is no dependency of this project.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.errors import CardError
from runtime.faces import Detections, ImageArray
from runtime.session import SharedSession, Tensor

_CLASSES = {"scrfd": "SCRFD", "insightface-retinaface": "RetinaFace"}
# insightface.app.FaceAnalysis.prepare: det_thresh=0.5.
_SCORE_THRESHOLD = 0.5


class InsightFaceDetector:
    """A detector of an InsightFace pack, with the input sizes and threshold of ``FaceAnalysis``. Safe from any thread.

    Their objects keep state between calls, so each thread has one of its own; all run the same session.
    """

    def __init__(self, session: SharedSession) -> None:
        """Raises CardError when the package is not installed, or the network gives no landmarks."""
        self.session = session
        self.card = session.card
        package = _package(session)
        self._class = getattr(package.model_zoo, _CLASSES[self.card.family])
        self._sizes = package.app.face_analysis.DEFAULT_DET_SIZES
        self._own = threading.local()
        fixed = getattr(self._network(), "static_input_size", None)
        self._least = min(fixed or [side for size in self._sizes for side in size])
        if not getattr(self._network(), "use_kps", True):
            raise CardError(f"{session.path} gives no landmarks, and faces are aligned by them: take a `_kps` network.")

    def scale(self, width: int, height: int) -> None:
        """Of any picture every pixel is needed: results are those of InsightFace."""

    def detect(self, image: ImageArray) -> Detections:
        """Faces of ``image`` ((h, w, 3) uint8 BGR), largest score first; boxes may reach over the picture's edges."""
        short, long = sorted(image.shape[:2])
        if short * self._least < long:
            # Scaled to the smallest input nothing would be left of the short side, which the package does not expect.
            return Detections.none()
        found, landmarks = self._network().detect(image)
        corners = np.asarray(found, np.float32).reshape(-1, 5)
        points = np.asarray(landmarks if landmarks is not None else [], np.float32).reshape(-1, 5, 2)
        order = np.argsort(-corners[:, 4], kind="stable")
        corners, points = corners[order], points[order]
        boxes = np.concatenate([corners[:, :2], corners[:, 2:4] - corners[:, :2]], axis=1)
        return Detections(boxes, points, corners[:, 4])

    def _network(self) -> Any:
        network = getattr(self._own, "network", None)
        if network is None:
            network = self._own.network = self._class(session=_Session(self.session))
            network.prepare(0, input_size=list(self._sizes), det_thresh=_SCORE_THRESHOLD)
        return network


class _Session:
    """What InsightFace's classes ask of an ``onnxruntime.InferenceSession``, answered by a shared one."""

    def __init__(self, session: SharedSession) -> None:
        self._session = session

    def get_inputs(self) -> Sequence[Any]:
        return self._session.input_nodes

    def get_outputs(self) -> Sequence[Any]:
        return self._session.output_nodes

    def get_providers(self) -> list[str]:
        return [self._session.provider]

    def run(self, outputs: Sequence[str] | None, feeds: Mapping[str, Tensor]) -> list[Tensor]:
        return self._session.run(feeds, outputs)


def _package(session: SharedSession) -> Any:
    try:
        importlib.import_module("insightface.app.face_analysis")
        return importlib.import_module("insightface")
    except ImportError as error:
        raise CardError(
            f"{session.path} is a detector of InsightFace, whose package cannot be imported ({error}). "
            "Install what it imports and then it alone: `pip install '.[insightface]'` and "
            "`pip install --no-deps 'insightface>=2.1,<3'`."
        ) from error
