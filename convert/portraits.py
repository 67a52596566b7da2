"""Pictures of faces to measure networks on: a folder of people, or what installed packages ship."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convert.errors import ConvertError, FacesError
from convert.fetch import DOWNLOADS, Options, fetch
from convert.sources import Fetcher
from convert.write import write_atomic
from models.catalog import load_catalog
from models.store import ModelStore, file_sha256
from runtime.decode import decode
from runtime.detectors import Detector, open_detector
from runtime.embed import Embedder
from runtime.errors import ImageError
from runtime.faces import Crops, Detections, ImageArray
from runtime.session import SharedSession

DETECTOR, PICTURES = "retinaface", "pictures"
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
SHIPPED = (
    ("insightface", "data/images/t1.jpg"),
    ("insightface", "data/images/Tom_Hanks_54745.png"),
    ("skimage", "data/astronaut.png"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
)
"""Pictures of people that packages ship: package, path inside it. Packages are looked up, never imported."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, eq=False)
class Portrait:
    """One face in one picture.

    Attributes:
        image: (h, w, 3) uint8 BGR, the face and its surroundings.
        face: the one face, in pixels of ``image``.
        person: who it is; "" when nobody said.
        source: file, relative to the folder, or package and file name.
    """

    image: ImageArray
    face: Detections
    person: str
    source: str


def shipped_pictures() -> list[tuple[str, Path]]:
    """Pictures of people among the installed packages: what to call each, and its path."""
    found = []
    for package, inside in SHIPPED:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            path = Path(folder) / inside
            if path.is_file():
                found.append((f"{package}/{path.name}", path))
    return found


def pictures_of_people(models_dir: Path, say: Say) -> list[tuple[str, Path]]:
    """Pictures that packages ship: those of installed ones, and the catalog's, fetched where they are not installed.

    Args:
        models_dir: kept in its folder ``pictures``, and looked for there.
        say: told when they cannot be had; fewer pictures, or none, must do then.
    """
    found = shipped_pictures()
    names = {path.name for _, path in found}
    wanted = [source for source in load_catalog().pictures if source.name not in names]
    with tempfile.TemporaryDirectory() as scratch:
        fetcher = Fetcher(Path(scratch), models_dir / DOWNLOADS)
        for source in wanted:
            path = models_dir / PICTURES / source.name
            try:
                if not path.is_file() or file_sha256(path) != source.sha256:
                    say(f"{source.name}: getting a picture of faces to measure on")
                    write_atomic(path, fetcher.get(source).data)
            except ConvertError as error:
                say(f"{source.name} cannot be had: {error}")
                break
            found.append((source.name, path))
    return found


def face_detector(models_dir: Path, say: Say) -> Detector:
    """The detector that finds faces to measure on; fetched into ``models_dir`` when it is not there.

    Raises:
        ConvertError: it cannot be had.
    """
    entry = load_catalog().find(DETECTOR)
    (found,) = fetch([entry], models_dir, Options(), say)
    return open_detector(SharedSession(ModelStore(models_dir).resolve(str(found.path))))


def portraits_from(folder: Path | None, models_dir: Path, say: Say) -> list[Portrait]:
    """The faces of ``folder``, or, when it is None, those of :func:`pictures_of_people` (perhaps none)."""
    pictures = pictures_of_people(models_dir, say) if folder is None else []
    if folder is None and not pictures:
        return []
    detector = face_detector(models_dir, say)
    return portraits_in(pictures, detector) if folder is None else folder_portraits(folder, detector, say)


def folder_portraits(
    folder: Path, detector: Detector, say: Say = lambda _text: None, most: int | None = None
) -> list[Portrait]:
    """The faces of ``folder/<person>/<picture>`` (the largest of each picture) and ``folder/<picture>`` (all).

    Args:
        folder: holds the pictures.
        detector: finds the faces.
        say: told what is left out, and how far it is.
        most: how many pictures to read at most (see :func:`some_people`).

    Raises:
        FacesError: the folder is not there, or no face was found in it.
    """
    if not folder.is_dir():
        raise FacesError(f"{folder} is no folder. Name one that holds pictures: DIR/<person>/<picture>.")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    people = [parts[0] if len(parts := path.relative_to(folder).parts) > 1 else "" for path in paths]
    kept = some_people(people, most or len(paths))
    paths, people = [paths[index] for index in kept], [people[index] for index in kept]
    portraits = []
    for number, (path, person) in enumerate(zip(paths, people, strict=True), start=1):
        inside = path.relative_to(folder)
        portraits += faces_in(path, detector, person, str(inside), say)
        if number % 500 == 0:
            say(f"{number} of {len(paths)} pictures read, {len(portraits)} faces")
    if not portraits:
        raise FacesError(f"No face was found in the {len(paths)} pictures of {folder}.")
    return portraits


def some_people(people: Sequence[str], most: int) -> list[int]:
    """Which of many pictures to take: all of every n-th person, at most ``most``; rising.

    Args:
        people: who each picture shows; "" is nobody in particular, each time somebody else.
        most: how many.
    """
    groups: dict[str, list[int]] = {}
    for index, person in enumerate(people):
        groups.setdefault(person or f"/{index}", []).append(index)
    step = max(-(-len(people) // most), 1) if most else 1
    return sorted([index for group in list(groups.values())[::step] for index in group][:most])


def portraits_in(pictures: Sequence[tuple[str, Path]], detector: Detector) -> list[Portrait]:
    """All faces of pictures, all unnamed; each picture is what to call it, and its path."""
    return [portrait for name, path in pictures for portrait in faces_in(path, detector, "", name, lambda _text: None)]


def crops(embedder: Embedder, portraits: Sequence[Portrait]) -> Crops:
    """Aligned crops for ``embedder``: (n, h, w, 3) BGR, 0 to 255."""
    return np.concatenate([embedder.align(portrait.image, portrait.face) for portrait in portraits])


def faces_in(path: Path, detector: Detector, person: str, source: str, say: Say) -> list[Portrait]:
    """The faces of one picture file: all of them, or of a named person the largest; none when it cannot be read."""
    try:
        image = decode(path.read_bytes())
    except (ImageError, OSError) as error:
        say(f"left out {source}: {error.strerror if isinstance(error, OSError) else error}")
        return []
    found = detector.detect(image)
    if not len(found):
        say(f"left out {source}: no face was found")
        return []
    chosen = range(len(found)) if not person else [int(np.argmax(found.boxes[:, 2] * found.boxes[:, 3]))]
    return [_trimmed(image, found.take(np.array([index])), person, source) for index in chosen]


def _trimmed(image: ImageArray, face: Detections, person: str, source: str) -> Portrait:
    """The face with its surroundings, one box on every side, so that thousands fit into memory."""
    x, y, width, height = face.boxes[0]
    left, top = max(int(x - width), 0), max(int(y - height), 0)
    cut = image[top : int(y + 2 * height) + 1, left : int(x + 2 * width) + 1].copy()
    return Portrait(cut, face.moved(-left, -top), person, source)
