"""Where DeepFace's ArcFace weights are when nobody says."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from convert.errors import FetchError, WeightsError
from convert.fetch import Options, fetch
from convert.sources import Advance
from models.catalog import load_catalog

NAME = "deepface-arcface"
FILE = "arcface_weights.h5"


def default_weights(folder: Path, offline: bool, say: Callable[[str], None], advance: Advance) -> Path:
    """``arcface_weights.h5`` where DeepFace keeps it, else downloaded into ``folder``, the models folder.

    Raises:
        WeightsError: it is neither there nor to be had; the message says where to get it and where to put it.
    """
    home = Path(os.environ.get("DEEPFACE_HOME") or Path.home()) / ".deepface" / "weights" / FILE
    if home.is_file():
        say(f"using {home}")
        return home
    entry = load_catalog().find(NAME)
    try:
        (found,) = fetch([entry], folder, Options(offline=offline), say, advance)
    except FetchError as error:
        raise WeightsError(
            f"{FILE} is not at {home} and cannot be downloaded: {error} Get it from the release v1.0 of "
            f"serengil/deepface_models, or from a machine that runs DeepFace; put it there or name it with --weights."
        ) from error
    return found.path
