"""Some thousand bodies that no honest client would send: each gets an answer, none of them a 5xx."""

from __future__ import annotations

import io
import random
import socket
import struct
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image, features

CLIENTS = 16
MINIMUM = 3000
MEMORY_GROWTH = 400 * 2**20


@dataclass(frozen=True, slots=True)
class Body:
    """A picture field's content and, where only one is right, the code that it must be answered with."""

    kind: str
    data: bytes
    code: str | None = None


@pytest.fixture(scope="module")
def service(start: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("bad")
    with start(DATA_DIR=str(folder), VECTOR_DB_ENABLED="false", UPLOAD_TIMEOUT="1.5") as opened:
        yield opened


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def small_picture(mode: str = "RGB", size: tuple[int, int] = (72, 56)) -> Image.Image:
    noise = random.Random(7).randbytes(size[0] * size[1] * 3)
    picture = Image.frombytes("RGB", size, noise).resize((size[0] // 2, size[1] // 2)).resize(size)
    if mode == "I;16":
        return picture.convert("L").convert("I").point(lambda value: value * 256).convert("I;16")
    return picture.convert(mode)


def originals() -> dict[str, bytes]:
    picture = small_picture()
    return {
        "jpeg": encoded(picture, "JPEG"),
        "progressive jpeg": encoded(picture, "JPEG", progressive=True),
        "png": encoded(picture, "PNG"),
        "interlaced tiff": encoded(picture, "TIFF", compression="tiff_lzw"),
        "webp": encoded(picture, "WEBP"),
        "lossless webp": encoded(picture, "WEBP", lossless=True),
        "bmp": encoded(picture, "BMP"),
        "tiff": encoded(picture, "TIFF"),
        "deflated tiff": encoded(picture, "TIFF", compression="tiff_deflate"),
        "alpha png": encoded(small_picture("RGBA"), "PNG"),
    }


def truncated() -> Iterator[Body]:
    for kind, data in originals().items():
        for cut in sorted({round(len(data) * step / 60) for step in range(60)}):
            yield Body(f"truncated {kind}", data[:cut])


def flipped() -> Iterator[Body]:
    chance = random.Random(1)
    for kind, data in originals().items():
        for _ in range(200):
            damaged = bytearray(data)
            # Headers matter most: half of the flips go to the first 64 bytes.
            for _ in range(chance.choice((1, 2, 8, 32))):
                limit = 64 if chance.random() < 0.5 else len(data)
                damaged[chance.randrange(min(limit, len(data)))] ^= 1 << chance.randrange(8)
            yield Body(f"flipped {kind}", bytes(damaged))


def spliced() -> Iterator[Body]:
    """The head of one format on the tail of another, and formats one after the other."""
    every = originals()
    for first, head in every.items():
        for second, tail in every.items():
            yield Body(f"{first} spliced with {second}", head[: len(head) // 2] + tail[len(tail) // 2 :])
            yield Body(f"{first} before {second}", head + tail)
            yield Body(f"zip before {second}", b"PK\x03\x04" + head[:20] + tail)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, content: bytes, depth: int = 8, colour: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def tiff(*entries: tuple[int, int, int, int]) -> bytes:
    """A little-endian TIFF of one directory; entries are tag, type, count, value."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\x00" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4)


def bombs() -> Iterator[Body]:
    zeros = zlib.compress(bytes(60_000_000), 9)
    for width, height in ((60_000, 60_000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (50_001, 1000), (20_001, 1)):
        yield Body("png bomb", png(width, height, zeros), "image_too_large")
    yield Body("png of a small size with much behind it", png(64, 64, zeros))
    yield Body("png with a bomb of text", png(64, 64, b"").replace(b"IEND", b"zTXt") + zlib.compress(bytes(10**8)))
    yield Body(
        "bmp bomb", b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0)
    )
    yield Body("webp bomb", encoded(small_picture(), "WEBP").replace(struct.pack("<H", 72), b"\xff\x3f", 1))
    size = ((256, 4, 1, 40_000), (257, 4, 1, 40_000))
    yield Body(
        "tiff bomb", tiff(*size, (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 2**31))
    )
    small = ((256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1))
    yield Body("tiff of huge strips", tiff(*small, (273, 4, 1, 8), (278, 4, 1, 2**32 - 1), (279, 4, 1, 2**32 - 1)))
    yield Body("tiff that points to itself", b"II*\x00" + struct.pack("<IHI", 8, 0, 8))
    yield Body("tiff of a million strips", tiff(*small, (273, 4, 10**6, 8), (279, 4, 10**6, 8)))
    yield Body("jpeg of 65535 x 65535", encoded(small_picture(), "JPEG").replace(b"\x00\x38\x00\x48", b"\xff" * 4, 1))


def foreign() -> Iterator[Body]:
    brands = {b"heic": "heic", b"heix": "heic", b"mif1": "heif", b"avif": "avif"}
    for brand, name in brands.items():
        box = b"ftyp" + brand + bytes(4) + b"mif1" + brand
        yield Body(name, struct.pack(">I", len(box) + 4) + box + bytes(500), "unsupported_format")
    if features.check("avif"):
        yield Body("real avif", encoded(small_picture(), "AVIF"), "unsupported_format")
    yield Body("gif", encoded(small_picture("P"), "GIF"), "unsupported_format")
    yield Body(
        "svg", b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>', "unsupported_format"
    )
    yield Body(
        "svg with an entity",
        b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><svg>&a;</svg>',
    )
    yield Body("pdf", b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n", "unsupported_format")
    yield Body("ico", encoded(small_picture(), "ICO", sizes=[(32, 32)]), "unsupported_format")
    yield Body("ppm", encoded(small_picture(), "PPM"), "unsupported_format")
    yield Body("jpeg 2000", encoded(small_picture(), "JPEG2000"), "unsupported_format")
    yield Body("empty", b"", "image_empty")
    yield Body("text", b"hello", "unsupported_format")
    yield Body("pickle", b"cos\nsystem\n(S'touch owned'\ntR.", "unsupported_format")
    yield Body("zeros", bytes(10_000), "unsupported_format")
    yield Body("eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "unsupported_format")
    chance = random.Random(3)
    for _ in range(150):
        yield Body("random bytes", chance.randbytes(chance.choice((1, 7, 100, 5000))))


def odd_but_fine() -> Iterator[Body]:
    """What is to be read, however strange."""
    for size in ((1, 1), (1, 20_000), (20_000, 1), (2, 3), (300, 1)):
        yield Body(f"picture of {size}", encoded(Image.new("RGB", size, "teal"), "PNG"), "")
    for mode, form in (
        ("CMYK", "JPEG"),
        ("L", "JPEG"),
        ("1", "PNG"),
        ("P", "PNG"),
        ("LA", "PNG"),
        ("RGBA", "WEBP"),
        ("I;16", "PNG"),
        ("I;16", "TIFF"),
        ("CMYK", "TIFF"),
        ("P", "BMP"),
    ):
        yield Body(f"{mode} {form}", encoded(small_picture(mode), form), "")
    frames = [small_picture().rotate(angle) for angle in (90, 180)]
    for form in ("PNG", "WEBP", "TIFF"):
        yield Body(f"animated {form}", encoded(small_picture(), form, save_all=True, append_images=frames), "")
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield Body(f"orientation {orientation}", encoded(small_picture(), "JPEG", exif=exif), "")
    for orientation in (0, 9, 65535):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield Body(f"orientation {orientation}", encoded(small_picture(), "JPEG", exif=exif), "")


def bodies() -> list[Body]:
    return [*truncated(), *flipped(), *spliced(), *bombs(), *foreign(), *odd_but_fine()]


def test_thousands_of_bad_pictures(service: Any) -> None:
    everything = bodies()
    assert len(everything) >= MINIMUM
    process = psutil.Process(service.process.pid)
    service.client.post("/analyze", files={"image": originals()["png"]})
    before = process.memory_info().rss

    def ask(body: Body) -> tuple[Body, int, str]:
        answer = service.client.post("/analyze", files={"image": ("picture", body.data)})
        if answer.status_code == 200:
            return body, 200, ""
        error = answer.json()["error"]
        assert len(error["message"]) > 20, error
        return body, answer.status_code, error["code"]

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(ask, everything))
    wrong = [(body.kind, status, code) for body, status, code in answers if not (status == 200 or 400 <= status < 500)]
    assert not wrong
    unexpected = [(body.kind, status, code) for body, status, code in answers if body.code not in (None, code)]
    assert not unexpected
    statuses = Counter(status for _, status, _ in answers)
    assert statuses[200] > 100
    assert statuses[415] > 20
    assert statuses[422] > 500
    assert service.process.poll() is None
    assert process.memory_info().rss - before < MEMORY_GROWTH
    assert service.client.get("/health/ready").status_code == 200


def multipart(*parts: tuple[str, bytes], boundary: bytes = b"x") -> bytes:
    lines = []
    for disposition, content in parts:
        lines.append(b"--" + boundary + b"\r\nContent-Disposition: " + disposition.encode() + b"\r\n\r\n" + content)
    return b"\r\n".join(lines) + b"\r\n--" + boundary + b"--\r\n"


FILE = 'form-data; name="image"; filename="x"'


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "missing_image"),
        (b"no multipart at all", "invalid_multipart"),
        (multipart((FILE, b"x"))[:-30], "missing_image"),
        (multipart((FILE, b"x"), boundary=b"other"), "invalid_multipart"),
        (multipart(("form-data", b"x")), "invalid_multipart"),
        (multipart(('form-data; name="photo"; filename="x"', b"x")), "missing_image"),
        (multipart(('form-data; name="image"', b"x")), "missing_image"),
        (multipart((FILE, b"x"), (FILE, b"x")), "too_many_images"),
        (multipart(*[(FILE, b"x")] * 50), None),
        (multipart(*[(f'form-data; name="{n}"', b"x") for n in range(1000)]), None),
        (multipart(('form-data; name="' + "n" * 100_000 + '"', b"x")), None),
        (multipart(('form-data; name="text"', b"x" * 10**6)), None),
        (b"--x\r\n" * 10_000, None),
        (b"--x\r\nContent-Disposition: form-data; name=\xff\xfe\r\n\r\nx\r\n--x--\r\n", None),
        (b"--x\r\n" + b"A: b\r\n" * 20_000 + b"\r\n\r\n--x--\r\n", None),
    ],
)
def test_broken_multipart(service: Any, content: bytes, code: str | None) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = service.client.post("/analyze", content=content, headers=headers)
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]["code"] == (code or answer.json()["error"]["code"])


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=", "image/png", "", "a" * 5000])
def test_wrong_content_types(service: Any, kind: str) -> None:
    answer = service.client.post("/analyze", content=b"x", headers={"Content-Type": kind})
    assert answer.status_code in (400, 415)


def test_a_body_of_100_mb_is_refused_without_being_read(service: Any) -> None:
    process = psutil.Process(service.process.pid)
    before = process.memory_info().rss

    def endless() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
        for _ in range(100):
            yield bytes(2**20)

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    try:
        status = service.client.post("/analyze", content=endless(), headers=headers).status_code
    except httpx.TransportError:
        status = 413  # The server had answered and closed while the rest was still on its way.
    assert status == 413
    assert process.memory_info().rss - before < 100 * 2**20


@pytest.mark.parametrize("pause", [0.2, 5.0], ids=["drop by drop", "silence"])
def test_a_slow_upload_is_given_up(service: Any, pause: float) -> None:
    start = time.monotonic()
    with connected(service) as peer:
        peer.sendall(head(service, 10_000) + b"--x\r\n")
        answer = b""
        peer.settimeout(pause)
        while not answer and time.monotonic() - start < 60:
            try:
                answer = peer.recv(4096)
            except TimeoutError:
                peer.sendall(b"a")
    assert b" 408 " in answer.splitlines()[0]


@pytest.mark.parametrize("length", ["-1", "abc", "1e3", "999999999999999999999", "10, 20"])
def test_a_wrong_length_is_refused(service: Any, length: str) -> None:
    with connected(service) as peer:
        peer.sendall(head(service, length) + b"--x--\r\n")
        peer.settimeout(60)
        first = peer.recv(4096).splitlines()[0]
    assert first.split()[1].startswith(b"4"), first


def test_what_is_no_http_is_told_as_all_errors_are(service: Any) -> None:
    with connected(service) as peer:
        peer.sendall(b"\x16\x03\x01\x02\x00")
        assert b'"invalid_http"' in peer.recv(4096)


def test_a_client_that_leaves_in_the_middle_of_its_upload_frees_its_place(service: Any) -> None:
    for _ in range(200):
        with connected(service) as peer:
            peer.sendall(head(service, 100_000) + b"--x\r\n")
    assert service.client.post("/analyze", files={"image": originals()["png"]}).status_code == 200
    assert figure(service, 'face_pending{pool="inference"}') == 0


def test_a_client_that_leaves_while_it_waits_frees_its_place(service: Any, group_picture: Path) -> None:
    """Whoever is gone is passed over."""
    content = multipart((FILE, group_picture.read_bytes()))
    embedded = figure(service, 'face_stage_seconds_count{stage="embed"}')
    peers = [connected(service) for _ in range(60)]
    for peer in peers:
        peer.sendall(head(service, len(content)) + content)
    for peer in peers:
        peer.close()
    answer = service.client.post("/analyze", files={"image": group_picture.read_bytes()})
    assert answer.status_code == 200
    deadline = time.monotonic() + 60
    while figure(service, 'face_pending{pool="inference"}') > 0:
        assert time.monotonic() < deadline, "places stay taken"
        time.sleep(0.05)
    assert figure(service, 'face_stage_seconds_count{stage="embed"}') - embedded < len(peers) / 2
    assert "the client left" in service.log.read_text()


def figure(service: Any, name: str) -> float:
    """One number of ``/metrics``."""
    lines = service.client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def connected(service: Any) -> socket.socket:
    url = service.client.base_url
    return socket.create_connection((url.host, url.port), timeout=60)


def head(service: Any, length: int | str) -> bytes:
    url = service.client.base_url
    return (
        f"POST /analyze HTTP/1.1\r\nHost: {url.host}:{url.port}\r\nContent-Length: {length}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    ).encode()
