"""Ten seconds of coverage-guided fuzzing for each target, from real files; both at once."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from matchers.base import GalleryFace
from matchers.records import write_gallery

SECONDS = 10
HERE = Path(__file__).parent

if importlib.util.find_spec("atheris") is None:
    pytest.skip("atheris is not installed: it comes with '.[dev]' on Linux", allow_module_level=True)


def test_no_input_breaks_the_readers(tmp_path: Path) -> None:
    pictures, galleries = tmp_path / "pictures", tmp_path / "galleries"
    for folder in (pictures, galleries):
        folder.mkdir()
    noise = np.random.default_rng(1).integers(0, 256, (12, 16, 3), np.uint8)
    for form in ("jpg", "png", "webp", "bmp", "tiff"):
        cv2.imwrite(str(pictures / f"seed.{form}"), noise)
    embedding = np.full(4, 0.5, np.float32)
    faces = [GalleryFace("amy", f"amy/{number}.jpg", "ab" * 20, embedding, (1, 2, 3, 4)) for number in range(2)]
    write_gallery(galleries / "seed.pkl", faces)
    limits = (f"-max_total_time={SECONDS}", "-timeout=10", "-rss_limit_mb=1500", "-seed=1", "-verbosity=0")
    running = {
        target: subprocess.Popen(
            [sys.executable, HERE / f"fuzz_{target}.py", *limits, f"-artifact_prefix={tmp_path}/", str(corpus)],
            cwd=HERE.parent.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for target, corpus in (("decode", pictures), ("gallery", galleries))
    }
    start = time.monotonic()
    for target, process in running.items():
        output = process.communicate(timeout=SECONDS + 120)[0].decode(errors="replace")
        assert process.returncode == 0, f"{target}:\n{output[-3000:]}"
    assert time.monotonic() - start >= SECONDS - 5, "the fuzzers ended early"
