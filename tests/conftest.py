"""What all tests share: real models, a real engine, a real PostgreSQL, and the material beside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import settings

from matchers.demo import demo_picture
from matchers.embedded import EmbeddedPostgres
from models.settings import Settings
from runtime.decode import decode
from runtime.engine import FaceEngine, open_engine
from runtime.memory import return_memory, share_one_arena

# No test is timed, those of hypothesis neither.
settings.register_profile("untimed", parent=settings(), deadline=None)
settings.load_profile("untimed")

# As in the server; otherwise each of the threads that tests start keeps what it once needed.
share_one_arena()

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = frozenset(name.upper() for name in Settings.model_fields)


@pytest.fixture(scope="module", autouse=True)
def _memory_is_returned() -> Iterator[None]:
    """Networks that the tests of a file opened and dropped take no memory from those of the next."""
    yield
    return_memory()


@pytest.fixture(scope="session")
def plain_environment() -> Mapping[str, str]:
    """This process's environment without any of the service's settings."""
    return {name: value for name, value in os.environ.items() if name.upper() not in SETTINGS}


@pytest.fixture(scope="session")
def models_dir(plain_environment: Mapping[str, str]) -> Path:
    """The folder of the default pack's models: ``MODELS_DIR``, or ``data/models`` of this checkout."""
    folder = Path(os.environ.get("MODELS_DIR") or ROOT / "data" / "models").resolve()
    environment = {**plain_environment, "MODELS_DIR": str(folder)}
    subprocess.run([sys.executable, "-m", "convert", "fetch"], cwd=ROOT, env=environment, check=True)
    return folder


@pytest.fixture(scope="session")
def engine(models_dir: Path) -> FaceEngine:
    """The default detector and embedder."""
    return open_engine(Settings(_env_file=None, models_dir=models_dir, execution_provider="cpu"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of test material beside the checkout."""
    folder = ROOT.parent / "shared"
    if not (folder / "faces").is_dir():
        pytest.skip("the test material is not there: no folder ../shared/faces beside the checkout")
    return folder


@pytest.fixture(scope="session")
def group_picture() -> Path:
    """A picture of six people that the package insightface ships."""
    path = demo_picture()
    if path is None:
        pytest.skip("the package insightface, which ships the picture, is not installed")
    return path


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Puts a PostgreSQL cluster that was made once into a ``DATA_DIR`` that has none, and gives the folder back.

    It does not wait for the disk: what tests kill are processes, not the machine.
    """
    template = tmp_path_factory.mktemp("template")

    def furnish(data_dir: Path) -> Path:
        if not (template / "postgres").exists():
            with EmbeddedPostgres(template):
                pass
            with (template / "postgres" / "data" / "postgresql.conf").open("a") as settings:
                settings.write("fsync = off\n")
        if not (data_dir / "postgres").exists():
            data_dir.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", template / "postgres", data_dir], check=True)
        return data_dir

    return furnish


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory, furnished: Callable[[Path], Path]) -> Iterator[str]:
    """Connection string of the superuser of an embedded PostgreSQL that all tests share."""
    with EmbeddedPostgres(furnished(tmp_path_factory.mktemp("embedded postgres"))) as server:
        yield server.start()


@pytest.fixture(scope="session")
def portraits(engine: FaceEngine, group_picture: Path) -> list[bytes]:
    """PNG files with one face each, cut out of the group picture from left to right."""
    image = decode(group_picture.read_bytes())
    boxes = engine.embed_image(image).detections.boxes
    cut = []
    for x, y, width, height in boxes[np.argsort(boxes[:, 0])].astype(int):
        margin = width // 3
        crop = image[max(y - margin, 0) : y + height + margin, max(x - margin, 0) : x + width + margin]
        crop = cv2.copyMakeBorder(crop, 40, 40, 40, 40, cv2.BORDER_CONSTANT, value=(127, 127, 127))
        assert len(engine.embed_image(crop).detections) == 1
        cut.append(cv2.imencode(".png", crop)[1].tobytes())
    return cut
