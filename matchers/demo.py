"""A first gallery for people who have no pictures at hand: the group picture that the insightface package ships.

The package is only looked up, never imported: it needs an OpenCV with a window system.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from pathlib import Path

import numpy as np

from matchers.base import GalleryFace, GalleryStore
from matchers.errors import StoreUnavailable
from matchers.service import Stores
from runtime.engine import FaceEngine

DOMAIN = "demo"

_PACKAGE = "insightface"
_PICTURE = Path("data", "images", "t1.jpg")

_log = logging.getLogger("matchers.demo")


def demo_picture() -> Path | None:
    """The installed group picture, None when the package is not there."""
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder) / _PICTURE
        if path.is_file():
            return path
    return None


def ensure_demo(engine: FaceEngine, stores: Stores, domain: str = DOMAIN) -> bool:
    """Enrol each face of the demo picture as ``guest-1``, ``guest-2``, ... from left to right.

    Nothing happens when a store knows the domain already, or when the picture is not installed (the log says so).

    Returns:
        Whether the domain was made.

    Raises:
        InvalidName: the domain's name is not admitted.
    """
    targets: list[GalleryStore] = [stores.pkl]
    if stores.pgvector is not None:
        try:
            stores.pgvector.ping()
            targets.append(stores.pgvector)
        except StoreUnavailable as error:
            _log.warning("the demo domain is made without pgvector: %s", error)
    if any(domain in store.domains() for store in targets):
        return False
    path = demo_picture()
    if path is None:
        _log.info("no demo domain: the package %s, which ships its picture, is not installed", _PACKAGE)
        return False
    faces = _faces(engine, path)
    for store in targets:
        store.apply(domain, faces, ())
    _log.info("the domain %s holds the %d guests of %s", domain, len(faces), path.name)
    return True


def _faces(engine: FaceEngine, path: Path) -> list[GalleryFace]:
    data = path.read_bytes()
    digest = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    analysis = engine.analyze(data)
    boxes = np.rint(analysis.detections.boxes).astype(int)
    faces = []
    for number, index in enumerate(np.argsort(boxes[:, 0], kind="stable"), start=1):
        x, y, width, height = (int(value) for value in boxes[index])
        person = f"guest-{number}"
        source = f"{person}/{path.name}"
        faces.append(GalleryFace(person, source, digest, analysis.embeddings[index], (x, y, width, height)))
    return faces
