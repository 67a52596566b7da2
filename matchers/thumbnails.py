"""Small pictures of enrolled faces, so that people can see who is in a gallery."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np

from matchers.base import source_id
from matchers.files import remove_all_parts, written_atomically
from runtime.faces import FloatArray, ImageArray

_SIDE = 112
_AROUND = 1.5
_QUALITY = 90
_SUFFIX = ".jpg"


def small_picture(image: ImageArray, box: FloatArray) -> bytes:
    """A face with what is around it as a JPEG file of 112 x 112 pixels, as far as the picture goes.

    Args:
        image: (h, w, 3) uint8 BGR.
        box: (4,) float32, pixels: x, y, width, height.
    """
    x, y, width, height = (float(value) for value in box)
    side = max(1, round(min(_AROUND * max(width, height), *image.shape[:2])))
    left, top = (
        int(np.clip(round(middle - side / 2), 0, end - side))
        for middle, end in ((x + width / 2, image.shape[1]), (y + height / 2, image.shape[0]))
    )
    cut = image[top : top + side, left : left + side]
    small = cv2.resize(cut, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA if side > _SIDE else cv2.INTER_LINEAR)
    _, data = cv2.imencode(_SUFFIX, small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return data.tobytes()


class Thumbnails:
    """JPEG files ``root/<domain>/<face id>.jpg``, readable by their owner only."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, domain: str, face: str) -> bytes | None:
        """The picture of a face, None when none was kept."""
        try:
            return self._path(domain, face).read_bytes()
        except FileNotFoundError:
            return None

    def has(self, domain: str, face: str) -> bool:
        """Whether a picture of the face was kept."""
        return self._path(domain, face).exists()

    def write(self, domain: str, pictures: Mapping[str, bytes]) -> None:
        """Keep pictures by the ids of their faces.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        if not pictures:
            return
        for folder in (self.root, self.root / domain):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for face, data in pictures.items():
            with written_atomically(self._path(domain, face)) as file:
                file.write(data)

    def keep_only(self, domain: str, sources: Collection[str], faces: Collection[str]) -> None:
        """Of the pictures that belong to ``sources``, keep those of ``faces`` (ids). Nobody else may be writing."""
        prefixes = {source_id(source) for source in sources}
        for path in self._files(domain):
            if path.name[:16] in prefixes and path.stem not in faces:
                path.unlink(missing_ok=True)
        if (self.root / domain).is_dir():
            remove_all_parts(self.root / domain)

    def remove(self, domain: str, faces: Collection[str]) -> None:
        """Delete the pictures of ``faces`` (ids)."""
        for face in faces:
            self._path(domain, face).unlink(missing_ok=True)

    def drop(self, domain: str) -> None:
        """Delete all pictures of a domain."""
        if (self.root / domain).is_dir():
            shutil.rmtree(self.root / domain)

    def _files(self, domain: str) -> Iterator[Path]:
        folder = self.root / domain
        if folder.is_dir():
            yield from (path for path in folder.iterdir() if path.suffix == _SUFFIX)

    def _path(self, domain: str, face: str) -> Path:
        return self.root / domain / f"{face}{_SUFFIX}"
