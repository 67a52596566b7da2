"""What tests of convert share: models fetched once by the real command, and pictures with a face's landmarks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from convert.portraits import Portrait
from runtime.align import ARCFACE_TEMPLATE
from runtime.faces import Detections


@pytest.fixture(scope="session")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder, its path with a space, filled by ``python -m convert fetch``."""
    folder = tmp_path_factory.mktemp("fetched") / "models folder"
    command = [sys.executable, "-m", "convert", "fetch", "--pack", "default", "--models-dir", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture
def portrait() -> Callable[[int], Portrait]:
    """Makes a smooth picture by a seed, with a face in the template's place, 40 pixels to the right and 60 down."""

    def make(seed: int) -> Portrait:
        random = np.random.default_rng(seed)
        rows, columns = np.mgrid[0:220, 0:200]
        waves = [np.sin(rows / a + columns / b) for a, b in random.uniform(9, 30, (3, 2))]
        image = (127 + 60 * np.stack(waves, axis=2)).astype(np.uint8)
        landmarks = (ARCFACE_TEMPLATE + np.array([40, 60])).astype(np.float32)[None]
        boxes = np.array([[45, 70, 100, 95]], np.float32)
        return Portrait(image, Detections(boxes, landmarks, np.ones(1, np.float32)), "amy", "amy.png")

    return make
