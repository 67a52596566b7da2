"""Picture to embeddings: decode, detect, align, embed, each once."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

from models.card import ModelCard
from models.errors import CardError, ModelError
from models.settings import Settings
from models.store import ModelStore
from runtime.decode import Limits, decode
from runtime.detectors import EYES_AT_MOST, MANY_SHAPES, Detector, open_built_in, open_detector
from runtime.embed import Embedder
from runtime.faces import Analysis, ImageArray
from runtime.providers import SessionOptions, choose_provider
from runtime.session import Sessions


class FaceEngine:
    """One detector and one embedder, shared by all threads."""

    def __init__(self, detector: Detector, embedder: Embedder, limits: Limits | None = None) -> None:
        self.detector = detector
        self.embedder = embedder
        self.limits = limits or Limits()

    @property
    def detector_card(self) -> ModelCard:
        """The detector's contract."""
        return self.detector.card

    @property
    def embedder_card(self) -> ModelCard:
        """The embedder's contract."""
        return self.embedder.card

    @property
    def provider(self) -> str:
        """The execution provider that runs the models."""
        return self.embedder.session.provider

    @property
    def precision(self) -> str:
        """Of the embedder's arithmetic: what its file is in, or ``bf16``."""
        return "bf16" if self.embedder.session.options.bf16 else self.embedder_card.precision

    def analyze(self, data: bytes) -> Analysis:
        """Everything about the faces of one picture file.

        Raises:
            ImageError: the bytes are not a picture that can be used.
        """
        start = time.perf_counter()
        image = decode(data, self.limits)
        decoded = (time.perf_counter() - start) * 1000
        analysis = self.embed_image(image)
        return Analysis(
            analysis.width,
            analysis.height,
            analysis.detections,
            analysis.embeddings,
            {"decode": decoded, **analysis.timing_ms},
        )

    def embed_image(self, image: ImageArray) -> Analysis:
        """Everything about the faces of one decoded picture, (h, w, 3) uint8 BGR."""
        times = [time.perf_counter()]
        detections = self.detector.detect(image)
        times.append(time.perf_counter())
        crops = self.embedder.align(image, detections)
        times.append(time.perf_counter())
        embeddings = self.embedder.embed(crops)
        times.append(time.perf_counter())
        stages = [(after - before) * 1000 for before, after in itertools.pairwise(times)]
        timing = dict(zip(("detect", "align", "embed"), stages, strict=True))
        return Analysis(image.shape[1], image.shape[0], detections, embeddings, timing)


def open_engine(settings: Settings) -> FaceEngine:
    """Open the detector and the embedder that the settings name, on the provider that they name.

    Raises:
        ModelError: a model file is missing, damaged or has no card; the message gives the command that helps.
        ProviderError: the provider that was asked for cannot be loaded; the message says what to install.
    """
    store = ModelStore(settings.models_path)
    detector, embedder = store.find(settings.detector, "detection"), store.find(settings.embedder, "embedding")
    check_pair(detector.card, embedder.card)
    if embedder.path is None:
        raise ModelError(f"The embedder {settings.embedder!r} has no file.")
    options = SessionOptions(settings.inference_threads)
    # The detector stays in float32: crops must not depend on the embedder's precision.
    seeing = replace(options, arena=detector.card.family not in MANY_SHAPES)
    precise = replace(options, bf16=settings.inference_precision == "bf16")
    provider = choose_provider(settings.execution_provider, embedder.path, precise)
    sessions = Sessions()
    return FaceEngine(
        open_built_in(detector.card)
        if detector.path is None
        else open_detector(sessions.open(detector.path, provider, seeing, detector.card)),
        Embedder(sessions.open(embedder.path, provider, precise, embedder.card)),
    )


def check_pair(detector: ModelCard, embedder: ModelCard) -> None:
    """Whether the detector gives what the embedder's alignment needs.

    Raises:
        CardError: it does not; the message says which to take instead.
    """
    if embedder.alignment == "similarity" and detector.family in EYES_AT_MOST:
        raise CardError(
            f"The detector {detector.name} finds eyes at most, but the embedder {embedder.name} takes faces that are "
            f"aligned by five landmarks. Set DETECTOR=retinaface, or an EMBEDDER that is aligned as DeepFace does it: "
            "`python -m convert export` and `python -m convert adopt --preset deepface-arcface` make one."
        )
