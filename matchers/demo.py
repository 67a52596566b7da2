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
from matchers.journal import writing
from matchers.service import Stores
from matchers.thumbnails import small_picture
from runtime.decode import decode
from runtime.engine import FaceEngine

DOMAIN = "demo"

_PACKAGE = "insightface"
_PICTURE = Path("data", "images", "t1.jpg")

_GUEST = "guest-"
# A file of DATA_DIR: somebody who deletes the domain does not want it back at the next start.
_MADE = "demo-made"

_log = logging.getLogger("matchers.demo")


def demo_picture() -> Path | None:
    """The installed group picture, None when the package is not there."""
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder) / _PICTURE
        if path.is_file():
            return path
    return None


def ensure_demo(
    engine: FaceEngine, stores: Stores, domain: str = DOMAIN, *, again: bool = False, keep_thumbnails: bool = True
) -> bool:
    """Enrol each face of the demo picture as ``guest-1``, ``guest-2``, ... from left to right, once per ``DATA_DIR``.

    Nothing happens when the demo was made before, even if somebody has deleted it since; when it holds anybody else;
    or when the picture is not installed (the log says so). When only one store holds the demo, the other one gets it.

    Args:
        again: make it although it was made before.
        keep_thumbnails: keep a small picture of each guest.

    Returns:
        Whether something was enrolled.

    Raises:
        StoreUnavailable, GalleryError: the PKL gallery cannot be read or written.
    """
    made = stores.data_dir / _MADE
    if made.exists() and not again:
        return False
    with writing(stores, domain) as writer:
        # Of several processes that start at once, the first one has made it by now.
        if made.exists() and not again:
            return False
        faces, thumbnails = _lacking(engine, stores, domain)
        if faces is None:
            return False
        if faces:
            writer.write(faces, (), thumbnails if keep_thumbnails else {})
        if domain == DOMAIN:
            made.touch(mode=0o600)
    return bool(faces)


def _lacking(engine: FaceEngine, stores: Stores, domain: str) -> tuple[list[GalleryFace] | None, dict[str, bytes]]:
    """What is to be enrolled, with thumbnails; None when the picture is not installed."""
    targets: list[GalleryStore] = [stores.pkl]
    if stores.pgvector is not None:
        targets.append(stores.pgvector)
    holders: list[GalleryStore] = []
    lacking: list[GalleryStore] = []
    for store in targets:
        try:
            (holders if domain in store.domains() else lacking).append(store)
        except StoreUnavailable as error:
            _log.warning("the demo domain comes later to a store: %s", error)
    if not holders:
        return _demo_faces(engine)
    faces = holders[0].faces(domain) if lacking else []
    return (faces if all(map(_is_demo, faces)) else []), {}


def _is_demo(face: GalleryFace) -> bool:
    return face.person.startswith(_GUEST) and face.source == f"{face.person}/{_PICTURE.name}"


def _demo_faces(engine: FaceEngine) -> tuple[list[GalleryFace] | None, dict[str, bytes]]:
    path = demo_picture()
    if path is None:
        _log.info("no demo domain: the package %s, which ships its picture, is not installed", _PACKAGE)
        return None, {}
    data = path.read_bytes()
    digest = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    image = decode(data, engine.limits)
    analysis = engine.embed_image(image)
    boxes = np.rint(analysis.detections.boxes).astype(int)
    faces, thumbnails = [], {}
    for number, index in enumerate(np.argsort(boxes[:, 0], kind="stable"), start=1):
        x, y, width, height = (int(value) for value in boxes[index])
        person = f"{_GUEST}{number}"
        source = f"{person}/{_PICTURE.name}"
        face = GalleryFace(person, source, digest, analysis.embeddings[index], (x, y, width, height))
        faces.append(face)
        thumbnails[face.id] = small_picture(image, analysis.detections.boxes[index])
    return faces, thumbnails
