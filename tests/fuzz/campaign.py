"""Coverage-guided fuzzing of both readers at once, from real files: ``python tests/fuzz/campaign.py 60``."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from matchers.base import GalleryFace
from matchers.npz import write_npz
from matchers.records import write_gallery

HERE = Path(__file__).parent


def campaign(folder: Path, seconds: int) -> dict[str, str]:
    """What the targets that failed wrote, by name; each gets ``seconds``. Inputs that broke one are left in ``folder``.

    Raises:
        RuntimeError: they ended early.
    """
    limits = (f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=1500", "-seed=1", "-verbosity=0")
    start = time.monotonic()
    running = {
        target: subprocess.Popen(
            [sys.executable, HERE / f"fuzz_{target}.py", *limits, f"-artifact_prefix={folder}/", str(corpus)],
            cwd=HERE.parent.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for target, corpus in (("decode", _pictures(folder)), ("gallery", _galleries(folder)))
    }
    written = {target: process.communicate()[0].decode(errors="replace") for target, process in running.items()}
    if time.monotonic() - start < seconds - 2:
        raise RuntimeError("the fuzzers ended early:\n" + "\n".join(text[-3000:] for text in written.values()))
    return {target: text for target, text in written.items() if running[target].returncode}


def _pictures(folder: Path) -> Path:
    corpus = folder / "pictures"
    corpus.mkdir()
    noise = np.random.default_rng(1).integers(0, 256, (12, 16, 3), np.uint8)
    for form in ("jpg", "png", "webp", "bmp", "tiff"):
        cv2.imwrite(str(corpus / f"seed.{form}"), noise)
    return corpus


def _galleries(folder: Path) -> Path:
    corpus = folder / "galleries"
    corpus.mkdir()
    embedding = np.full(4, 0.5, np.float32)
    faces = [GalleryFace("amy", f"amy/{number}.jpg", "ab" * 20, embedding, (1, 2, 3, 4)) for number in range(2)]
    write_gallery(corpus / "seed.pkl", faces)
    with (corpus / "seed.npz").open("wb") as file:
        write_npz(file, [(f"/photos/{face.source}", face.digest, face) for face in faces], 4)
    return corpus


def main() -> int:
    """Exit status 1 when an input broke a reader."""
    with tempfile.TemporaryDirectory() as folder:
        failed = campaign(Path(folder), int(sys.argv[1]))
        for target, text in failed.items():
            print(f"{target}:\n{text[-3000:]}", file=sys.stderr)
    print("an input broke a reader" if failed else "no input broke a reader")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
