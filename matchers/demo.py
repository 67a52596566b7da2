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

_GUEST = "guest-"

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

    Nothing happens when the stores know the domain already, or when the picture is not installed (the log says so). A
    store that was down when the demo was made gets a copy of it. A store that is down is left out.

    Returns:
        Whether a store got the demo.
    """
    targets: list[GalleryStore] = [stores.pkl]
    if stores.pgvector is not None:
        targets.append(stores.pgvector)
    holders: list[GalleryStore] = []
    lacking: list[GalleryStore] = []
    for store in targets:
        try:
            (holders if domain in store.domains() else lacking).append(store)
        except StoreUnavailable as error:
            _log.warning("the demo domain is left out of a store: %s", error)
    if not lacking:
        return False
    faces = holders[0].faces(domain) if holders else _demo_faces(engine)
    if not faces or not all(map(_is_demo, faces)):
        return False
    return sum(_enrol(store, domain, faces) for store in lacking) > 0


def _enrol(store: GalleryStore, domain: str, faces: list[GalleryFace]) -> bool:
    try:
        store.apply(domain, faces, ())
    except StoreUnavailable as error:
        _log.warning("the demo domain is left out of a store: %s", error)
        return False
    return True


def _is_demo(face: GalleryFace) -> bool:
    return face.person.startswith(_GUEST) and face.source == f"{face.person}/{_PICTURE.name}"


def _demo_faces(engine: FaceEngine) -> list[GalleryFace]:
    path = demo_picture()
    if path is None:
        _log.info("no demo domain: the package %s, which ships its picture, is not installed", _PACKAGE)
        return []
    data = path.read_bytes()
    digest = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    analysis = engine.analyze(data)
    boxes = np.rint(analysis.detections.boxes).astype(int)
    faces = []
    for number, index in enumerate(np.argsort(boxes[:, 0], kind="stable"), start=1):
        x, y, width, height = (int(value) for value in boxes[index])
        person = f"{_GUEST}{number}"
        source = f"{person}/{_PICTURE.name}"
        faces.append(GalleryFace(person, source, digest, analysis.embeddings[index], (x, y, width, height)))
    return faces
