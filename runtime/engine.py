"""Picture to embeddings: decode, detect, align, embed."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from models.card import ModelCard
from models.errors import CardError, ModelError
from models.settings import Settings
from models.store import ModelStore
from runtime.decode import Limits, PictureFile, open_picture
from runtime.detectors import EYES_AT_MOST, MANY_SHAPES, Detector, open_built_in, open_detector
from runtime.embed import Embedder
from runtime.faces import Analysis, Crops, Detections, ImageArray
from runtime.providers import SessionOptions, choose_provider
from runtime.session import Sessions
from runtime.view import View, factor_to_cut, factor_to_detect


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

        Large JPEG files are decoded at a reduced size, and again where a face is too small there to be cut out.

        Raises:
            ImageError: the bytes are not a picture that can be used.
        """
        # Only the crops are kept while the embedder runs.
        return self._embed(self._cut_file(data)[0])

    def analyze_and_keep(self, data: bytes) -> tuple[Analysis, View]:
        """The same, and the pixels that the faces were cut out of.

        Raises:
            ImageError: the bytes are not a picture that can be used.
        """
        cut, view = self._cut_file(data)
        return self._embed(cut), view

    def embed_image(self, image: ImageArray) -> Analysis:
        """Everything about the faces of one decoded picture, (h, w, 3) uint8 BGR."""
        clock = _Clock()
        view = View(image, image.shape[1], image.shape[0])
        return self._embed(self._cut(view, self._detect(view, clock), (1,), clock))

    def _cut_file(self, data: bytes) -> tuple[_Cut, View]:
        clock = _Clock()
        file = open_picture(data, self.limits)
        view = file.view(self._factor_to_detect(file))
        clock.lap("decode")
        found = self._detect(view, clock)
        factors: tuple[int, ...] = (view.factor,)
        if view.factor > 1 and (factor := factor_to_cut(found.landmarks, view.factor)) < view.factor:
            view = file.view(factor)
            factors += (view.factor,)
            clock.lap("decode")
        return self._cut(view, found, factors, clock), view

    def _factor_to_detect(self, file: PictureFile) -> int:
        scale = self.detector.scale(file.width, file.height)
        # DeepFace's alignment promises its pixels.
        if not file.may_shrink or scale is None or self.embedder.card.as_deepface:
            return 1
        return factor_to_detect(file.width, file.height, scale)

    def _detect(self, view: View, clock: _Clock) -> Detections:
        found = view.in_full(self.detector.detect(view.pixels))
        clock.lap("detect")
        return found

    def _cut(self, view: View, found: Detections, factors: tuple[int, ...], clock: _Clock) -> _Cut:
        crops = self.embedder.align(view.pixels, view.inside(found))
        clock.lap("align")
        return _Cut(view.width, view.height, found, crops, factors, clock)

    def _embed(self, cut: _Cut) -> Analysis:
        embeddings = self.embedder.embed(cut.crops)
        cut.clock.lap("embed")
        return Analysis(cut.width, cut.height, cut.detections, embeddings, cut.clock.ms, cut.factors)


class _Clock:
    """Milliseconds since it was made or last read, summed by stage."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        self._read = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.ms[stage] = self.ms.get(stage, 0.0) + (now - self._read) * 1000
        self._read = now


@dataclass(frozen=True, slots=True, eq=False)
class _Cut:
    """An analysis up to the crops."""

    width: int
    height: int
    detections: Detections
    crops: Crops
    factors: tuple[int, ...]
    clock: _Clock


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
