from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from runtime.decode import Limits, decode
from runtime.errors import ImageError


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """A smooth picture, (48, 64, 3) uint8 RGB, different in every corner."""
    y, x = np.mgrid[0:48, 0:64]
    return np.stack([x * 4, y * 5, (x + y) * 2], axis=-1).astype(np.uint8)


def encoded(image: Image.Image, fmt: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("fmt", "tolerance"), [("JPEG", 12), ("PNG", 0), ("WEBP", 14), ("BMP", 0), ("TIFF", 0)])
def test_every_format_gives_bgr_pixels(scene: np.ndarray, fmt: str, tolerance: int) -> None:
    pixels = decode(encoded(Image.fromarray(scene), fmt, quality=95))
    assert pixels.shape == (48, 64, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels[:, :, ::-1].astype(int) - scene).max() <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(scene: np.ndarray, orientation: int) -> None:
    upright = Image.fromarray(scene)
    to_stored = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(to_stored[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = decode(encoded(stored, "PNG", exif=exif))
    assert np.array_equal(pixels[:, :, ::-1], scene)


def test_grey_becomes_three_equal_channels(scene: np.ndarray) -> None:
    pixels = decode(encoded(Image.fromarray(scene[:, :, 0]), "PNG"))
    assert np.array_equal(pixels, np.repeat(scene[:, :, :1], 3, axis=2))


def test_transparency_is_laid_on_white(scene: np.ndarray) -> None:
    rgba = np.dstack([scene, np.full(scene.shape[:2], 255, np.uint8)])
    rgba[:, :32, 3] = 0
    pixels = decode(encoded(Image.fromarray(rgba), "PNG"))
    assert (pixels[:, :32] == 255).all()
    assert np.array_equal(pixels[:, 32:, ::-1], scene[:, 32:])


def test_cmyk_jpeg_keeps_its_colours(scene: np.ndarray) -> None:
    pixels = decode(encoded(Image.fromarray(scene).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(pixels[:, :, ::-1].astype(int) - scene).mean() < 12


def test_sixteen_bit_png_keeps_its_brightness(scene: np.ndarray) -> None:
    ok, data = cv2.imencode(".png", scene.astype(np.uint16) * 257)
    assert ok
    assert np.abs(decode(data.tobytes()).astype(int) - scene).max() <= 1


def test_sixteen_bit_tiff_keeps_its_brightness(scene: np.ndarray) -> None:
    ok, data = cv2.imencode(".tiff", scene.astype(np.uint16) * 257)
    assert ok
    assert np.abs(decode(data.tobytes()).astype(int) - scene).max() <= 1


def test_palette_picture_with_transparency(scene: np.ndarray) -> None:
    palette = Image.fromarray(scene).quantize(16)
    pixels = decode(encoded(palette, "PNG", transparency=int(np.asarray(palette)[0, 0])))
    assert (pixels[0, 0] == 255).all()


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(30_000, 30_000), (100_000, 1), (8_000, 8_000), (2**31 - 1, 2**31 - 1)])
def test_huge_dimensions_are_refused_before_decoding(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError) as error:
        decode(png_that_claims(*size))
    assert error.value.code == "image_too_large"


def test_too_many_bytes_are_refused(scene: np.ndarray) -> None:
    data = encoded(Image.fromarray(scene), "PNG")
    with pytest.raises(ImageError) as error:
        decode(data, Limits(max_bytes=len(data) - 1))
    assert error.value.code == "image_too_large"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "image_empty"),
        (b"hello, I am a text", "unsupported_format"),
        (b"GIF89a" + bytes(40), "unsupported_format"),
        (b"%PDF-1.7\n", "unsupported_format"),
        (b"\xff\xd8\xff\xe0" + bytes(40), "image_unreadable"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "image_unreadable"),
    ],
)
def test_what_is_no_picture_gets_its_reason(data: bytes, code: str) -> None:
    with pytest.raises(ImageError) as error:
        decode(data)
    assert error.value.code == code


def test_a_cut_off_jpeg_is_refused(scene: np.ndarray) -> None:
    data = encoded(Image.fromarray(np.tile(scene, (8, 8, 1))), "JPEG")
    with pytest.raises(ImageError, match="cut off"):
        decode(data[: len(data) * 2 // 3])


@given(st.data())
def test_damaged_pictures_never_raise_anything_else(data: st.DataObject) -> None:
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 255, (16, 16, 3)).astype(np.uint8))
    raw = bytearray(encoded(picture, data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "TIFF"]))))
    for _ in range(data.draw(st.integers(0, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))]
    try:
        pixels = decode(bytes(raw), Limits(max_pixels=1_000_000))
    except ImageError:
        return
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3


def test_a_png_chunk_that_claims_more_than_the_file_holds_is_refused_at_once(scene: np.ndarray) -> None:
    """OpenCV would allot gigabytes for it."""
    data = bytearray(cv2.imencode(".png", scene)[1].tobytes())
    position = data.index(b"IDAT") - 4
    for claimed in (2**32 - 1, 2**31, len(data)):
        data[position : position + 4] = claimed.to_bytes(4)
        with pytest.raises(ImageError, match="PNG file is cut off"):
            decode(bytes(data))


def test_a_jpeg_of_very_many_scans_is_refused(scene: np.ndarray) -> None:
    """Each costs a pass over all pixels."""
    data = cv2.imencode(".jpg", scene, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert decode(data).shape == scene.shape
    with pytest.raises(ImageError, match="scans"):
        decode(data[:-2] + scan * 300 + data[-2:])
