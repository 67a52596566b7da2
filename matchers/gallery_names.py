"""What the name of a DeepFace gallery file says about its embeddings, and whether they fit the models in use."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePath
from typing import Final, Literal, get_args

from matchers.errors import GalleryMismatch
from models.card import ModelCard

Trait = Literal["model", "detector", "alignment", "normalisation", "expansion"]
TRAITS: Final[tuple[Trait, ...]] = get_args(Trait)
"""What a file's name says; each may be accepted although it differs."""

# DeepFace's ``modules/recognition.py``: 0.0.90 and later, 0.0.86 to 0.0.89, older ones.
_PATTERNS: Final = (
    re.compile(
        r"ds_model_(?P<model>.+)_detector_(?P<detector>.+)_(?P<alignment>aligned|unaligned)"
        r"_normalization_(?P<normalisation>.+)_expand_(?P<expansion>-?\d+)"
    ),
    re.compile(r"ds_(?P<model>.+)_(?P<detector>[^_]+)_v2"),
    re.compile(r"representations_(?P<model>.+)"),
)
_DEEPFACE_DETECTOR: Final[Mapping[str, str]] = {"haar": "opencv", "retinaface-r50": "retinaface"}
_OUR_DETECTOR: Final[Mapping[str, str]] = {"opencv": "haar", "retinaface": "retinaface-r50", "yunet": "yunet"}
_MODELS: Final = ("arcface", "facenet512", "facenet", "ghostfacenet", "openface", "vggface", "buffalol", "sface")


@dataclass(frozen=True, slots=True)
class GalleryName:
    """How the embeddings of a file were made, as far as its name tells; "" where it does not.

    Attributes:
        model: DeepFace's name of the network, for example ``arcface``.
        detector: DeepFace's name, for example ``opencv``.
        alignment: ``aligned`` or ``unaligned``.
        normalisation: ``base``, ``arcface``, ...
        expansion: per cent by which boxes were widened.
    """

    model: str = ""
    detector: str = ""
    alignment: str = ""
    normalisation: str = ""
    expansion: str = ""


def parse_name(file: str) -> GalleryName:
    """What the file's name says; nothing when it is none of DeepFace's."""
    stem = PurePath(file).stem.lower()
    for pattern in _PATTERNS:
        if match := pattern.fullmatch(stem):
            return GalleryName(**match.groupdict())
    return GalleryName()


def gallery_file(model: str, detector: str) -> str:
    """The name of a PKL gallery, as DeepFace finds it; ``detector`` is the name of its card."""
    return f"ds_model_{model}_detector_{deepface_detector(detector)}_aligned_normalization_base_expand_0.pkl"


def deepface_detector(detector: str) -> str:
    """What DeepFace calls the detector whose card is named so."""
    return _DEEPFACE_DETECTOR.get(detector, detector)


def deepface_file(card: ModelCard, detector: str, suffix: str) -> str:
    """The name under which DeepFace looks for a gallery of this embedder."""
    model = next((model for model in _MODELS if is_model(card, model)), _plain(card.name))
    name = GalleryName(model, _plain(deepface_detector(detector)), "aligned", _normalisation(card), "0")
    return (
        f"ds_model_{name.model}_detector_{name.detector}_{name.alignment}"
        f"_normalization_{name.normalisation}_expand_{name.expansion}{suffix}"
    )


def is_model(card: ModelCard, model: str) -> bool:
    """Whether ``card`` is of the network that DeepFace calls ``model``.

    InsightFace's networks are called ArcFace as well; DeepFace's own is the one that is fed as DeepFace feeds it.
    """
    wanted = _plain(model)
    if wanted == "arcface" and not card.as_deepface:
        return False
    for text in (card.name, card.origin):
        words = re.findall(r"[a-z0-9]+", text.lower())
        if wanted in words or wanted in map("".join, pairwise(words)):
            return True
    return False


def check_name(name: GalleryName, card: ModelCard, detector: str, accept: Collection[str] = ()) -> list[str]:
    """Make sure that faces made as ``name`` says can be compared with those of the models in use.

    Args:
        detector: name of the detector's card.
        accept: traits (of :data:`TRAITS`) that may differ.

    Returns:
        Sentences to tell: what differs and was accepted, and what the name does not tell.

    Raises:
        GalleryMismatch: something differs; the message says what and what to do.
    """
    differing = _differing(name, card, detector)
    refused = [trait for trait in differing if trait not in accept]
    if refused:
        raise GalleryMismatch(" ".join(differing[trait] for trait in refused), tuple(refused))
    told = [f"{text} It was accepted." for text in differing.values()]
    unknown = [trait for trait in TRAITS if not getattr(name, trait)]
    if len(unknown) == len(TRAITS):
        told.append(
            "The file's name is none of DeepFace's, so it does not tell which model and detector made the embeddings; "
            f"only their length was compared with that of {card.name}."
        )
    elif unknown:
        told.append(f"The file's name does not tell {', '.join(unknown)}.")
    if name.alignment == "aligned" and not card.as_deepface:
        told.append(
            f"If DeepFace made the gallery: it turned faces by their eyes, {card.name} gets faces placed by five "
            "points. Distances to its faces are somewhat larger than among faces made here."
        )
    return told


def _differing(name: GalleryName, card: ModelCard, detector: str) -> dict[Trait, str]:
    found: dict[Trait, str] = {}
    if name.model and not is_model(card, name.model):
        found["model"] = (
            f"The gallery's embeddings are of DeepFace's model {name.model}, EMBEDDER is {card.name} (from "
            f"{card.origin}): they cannot be compared. Set EMBEDDER to the model that made the gallery, or enrol the "
            "pictures anew with `python -m matchers sync`. Accept it only if the file's name is wrong."
        )
    if name.detector and name.detector != _plain(deepface_detector(detector)):
        ours = _OUR_DETECTOR.get(name.detector)
        remedy = f"Set DETECTOR={ours}" if ours else "This program does not have that detector: enrol the pictures anew"
        found["detector"] = (
            f"The gallery was made with DeepFace's detector {name.detector}, DETECTOR is {detector}, which frames "
            f"faces otherwise, so that distances grow. {remedy}, or accept that."
        )
    if name.alignment == "unaligned":
        found["alignment"] = (
            f"The gallery's faces were not turned upright (align=False), {card.name} is fed with aligned faces. Enrol "
            "the pictures anew, or accept that distances grow."
        )
    if name.normalisation and name.normalisation != _normalisation(card):
        found["normalisation"] = (
            f"The gallery was made with normalization {name.normalisation}, {card.name} works as with "
            f"{_normalisation(card)}: the embeddings differ. Adopt the model with that normalisation "
            "(`python -m convert adopt --help`), or enrol the pictures anew."
        )
    if name.expansion and int(name.expansion) != 0:
        found["expansion"] = (
            f"The gallery's boxes were widened by {name.expansion} % (expand_percentage), here they are not. Enrol the "
            "pictures anew, or accept that distances grow."
        )
    return found


def _normalisation(card: ModelCard) -> str:
    """DeepFace's name for how the card's network is fed (``modules/preprocessing.py``)."""
    return "arcface" if card.as_deepface and card.mean == (127.5, 127.5, 127.5) else "base"


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
