"""Models that a library ships inside itself: they have a card, but no file of ours."""

from __future__ import annotations

from collections.abc import Mapping

from models.card import ModelCard

HAAR = ModelCard(
    name="haar",
    task="detection",
    family="haar",
    layout="NHWC",
    colour="BGR",
    mean=(0.0, 0.0, 0.0),
    scale=(1.0, 1.0, 1.0),
    input_size=(0, 0),
    dimension=0,
    alignment="none",
    licence="Intel License Agreement for Open Source Computer Vision Library (BSD-like)",
    origin="haarcascade_frontalface_default.xml and haarcascade_eye.xml of opencv-python-headless",
    origin_sha256="0f7d4527844eb514d4a4948e822da90fbb16a34a0bbbbc6adc6498747a5aafb0",
    notes="DeepFace's detector backend `opencv`: boxes, and both eyes where they are found; no nose, no mouth. "
    "For embedders with the alignment `deepface`.",
)

BUILT_IN: Mapping[str, ModelCard] = {HAAR.name: HAAR}
"""By the name that ``DETECTOR`` takes."""
