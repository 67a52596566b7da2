"""Bytes of a picture to pixels, within limits that are checked before anything is decoded."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from runtime.errors import ImageError
from runtime.faces import ImageArray
from runtime.view import View

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
ACCEPTED = "JPEG, PNG, WebP, BMP or TIFF"

_PNG = b"\x89PNG\r\n\x1a\n"
_MAGIC = (b"\xff\xd8\xff", _PNG, b"RIFF", b"BM", b"II*\x00", b"MM\x00*")
# CIPA DC-008, tag 0x0112. Values from 5 on swap the axes.
_EXIF_ORIENTATION = 0x0112
_SWAPPED = 5
_ROWS_REVERSED, _COLUMNS_REVERSED = frozenset({3, 4, 7, 8}), frozenset({2, 3, 6, 7})
_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
# Encoders write about ten for a progressive picture.
_MAX_SCANS = 200
_WHITE = (255, 255, 255, 255)


# Limits of our own are checked before anything is decoded; pillow's would go to standard error, amid the log.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a picture may cost.

    Attributes:
        max_bytes: size of the file.
        max_pixels: width times height.
        max_side: pixels of the longer side.
    """

    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 50_000_000
    max_side: int = 20_000


@dataclass(frozen=True, slots=True)
class _Header:
    width: int
    height: int
    orientation: int
    is_jpeg: bool
    progressive: bool
    has_alpha: bool


class PictureFile:
    """The bytes of a picture that is within the limits, not decoded yet.

    Attributes:
        width, height: pixels, upright.
        may_shrink: whether it can be decoded at a reduced size, and that saves time.
    """

    def __init__(self, data: bytes, header: _Header) -> None:
        self._data = data
        self._header = header
        turned = header.orientation >= _SWAPPED
        self.width, self.height = (header.height, header.width) if turned else (header.width, header.height)
        self.may_shrink = header.is_jpeg and not header.progressive

    def view(self, factor: int = 1) -> View:
        """Decode the picture, or at 1/``factor`` of its size (2, 4 or 8; of JPEG only, in full where that fails).

        Raises:
            ImageError: ``image_unreadable``.
        """
        header = self._header
        if factor > 1:
            pixels = _decode_opencv(self._data, _REDUCED[factor])
            columns, rows = -(-header.width // factor), -(-header.height // factor)
            if pixels is not None and pixels.shape[:2] == (rows, columns):
                return self._reduced(pixels, factor)
        pixels = None if header.has_alpha else _decode_opencv(self._data, cv2.IMREAD_COLOR)
        upright = _turn(_decode_pillow(self._data) if pixels is None else pixels, header.orientation)
        return View(upright, upright.shape[1], upright.shape[0])

    def _reduced(self, pixels: ImageArray, factor: int) -> View:
        """Sizes are rounded up: the last row and column may reach beyond the picture, and be the first once turned."""
        upright = _turn(pixels, self._header.orientation)
        beyond = upright.shape[1] * factor - self.width, upright.shape[0] * factor - self.height
        left = beyond[0] if self._header.orientation in _COLUMNS_REVERSED else 0
        top = beyond[1] if self._header.orientation in _ROWS_REVERSED else 0
        return View(upright, self.width, self.height, factor, left, top)


def decode(data: bytes, limits: Limits | None = None) -> ImageArray:
    """Decode a JPEG, PNG, WebP, BMP or TIFF file; of an animation, the first frame.

    Transparent pixels are laid on white, the EXIF orientation is applied, grey, CMYK and 16-bit become 8-bit BGR.

    Returns:
        (height, width, 3) uint8, BGR.

    Raises:
        ImageError: ``image_empty``, ``image_too_large``, ``unsupported_format`` or ``image_unreadable``.
    """
    return open_picture(data, limits).view().pixels


def open_picture(data: bytes, limits: Limits | None = None) -> PictureFile:
    """What :func:`decode` does before it decodes.

    Raises:
        ImageError: ``image_empty``, ``image_too_large``, ``unsupported_format`` or ``image_unreadable``.
    """
    limits = limits or Limits()
    if not data:
        raise ImageError("image_empty", "The picture is empty. Send the bytes of an image file.")
    if len(data) > limits.max_bytes:
        raise ImageError(
            "image_too_large",
            f"The picture has {len(data):,} bytes; at most {limits.max_bytes:,} are taken. Send a smaller file.",
        )
    header = _read_header(data, limits)
    if header.is_jpeg:
        _check_jpeg(data)
    if data.startswith(_PNG):
        _check_png(data)
    return PictureFile(data, header)


def _read_header(data: bytes, limits: Limits) -> _Header:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            orientation = _orientation(image)
            has_alpha = image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info
            is_jpeg = image.format in {"JPEG", "MPO"}
            progressive = "progressive" in image.info
    except Image.DecompressionBombError as error:
        raise ImageError("image_too_large", _too_many_pixels(limits)) from error
    except UnidentifiedImageError as error:
        if data.startswith(_MAGIC):
            raise ImageError("image_unreadable", "The picture is damaged: its header cannot be read.") from error
        raise ImageError("unsupported_format", f"This is not a picture in a known format. Send {ACCEPTED}.") from error
    except Exception as error:
        raise ImageError("image_unreadable", "The picture is damaged: its header cannot be read.") from error
    if width < 1 or height < 1:
        raise ImageError("image_unreadable", "The picture is damaged: it has no pixels.")
    if width * height > limits.max_pixels or max(width, height) > limits.max_side:
        raise ImageError("image_too_large", f"The picture has {width} x {height} pixels. " + _too_many_pixels(limits))
    return _Header(width, height, orientation, is_jpeg, progressive, has_alpha)


def _check_jpeg(data: bytes) -> None:
    if data.rfind(b"\xff\xd9", len(data) // 2) < 0:
        raise ImageError("image_unreadable", "The JPEG file is cut off: its end marker is missing. Send it again.")
    # Each scan costs a pass over all pixels but may be a few bytes long. Within a scan, 0xff is followed by zero.
    if (scans := data.count(b"\xff\xda")) > _MAX_SCANS:
        raise ImageError("image_unreadable", f"The JPEG file has {scans} scans; at most {_MAX_SCANS} are read.")


def _check_png(data: bytes) -> None:
    """Every chunk lies within the file (PNG specification, 5.3): OpenCV allots what a length says before it reads."""
    position = len(_PNG)
    while position < len(data):
        kind = data[position + 4 : position + 8]
        position += 12 + int.from_bytes(data[position : position + 4])
        if position > len(data):
            raise ImageError("image_unreadable", "The PNG file is cut off or damaged. Send it again.")
        if kind == b"IEND":
            return
    raise ImageError("image_unreadable", "The PNG file is cut off: its end is missing. Send it again.")


def _too_many_pixels(limits: Limits) -> str:
    return (
        f"At most {limits.max_pixels:,} pixels and {limits.max_side:,} on the longer side are taken. "
        "Send a smaller picture."
    )


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _decode_opencv(data: bytes, mode: int) -> ImageArray | None:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), mode | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    if pixels is None or pixels.dtype != np.uint8:
        return None
    return np.asarray(pixels, np.uint8)


def _decode_pillow(data: bytes) -> ImageArray:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            rgba = image.convert("RGBA")
            background = Image.new("RGBA", rgba.size, _WHITE)
            rgb = np.asarray(Image.alpha_composite(background, rgba).convert("RGB"), np.uint8)
    except Exception as error:
        raise ImageError("image_unreadable", "The picture is damaged and cannot be decoded. Send it again.") from error
    return np.ascontiguousarray(rgb[:, :, ::-1])


def _turn(pixels: ImageArray, orientation: int) -> ImageArray:
    """Undo the EXIF orientation: the axes are swapped, then rows or columns reversed."""
    if orientation >= _SWAPPED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in _ROWS_REVERSED:
        pixels = pixels[::-1]
    if orientation in _COLUMNS_REVERSED:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
