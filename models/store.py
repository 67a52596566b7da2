"""Where model files live, and how a name or path in the settings becomes one of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from models.builtin import BUILT_IN
from models.card import ModelCard, Task, load_card
from models.errors import CardError, ModelError

SIDECAR_SUFFIX = ".sha256"


@dataclass(frozen=True, slots=True)
class Model:
    """A model that a setting names.

    Attributes:
        card: its contract.
        path: its file; None for one that a library ships inside itself.
        pack: whether the file belongs to an InsightFace pack, so that it carries no card itself.
    """

    card: ModelCard
    path: Path | None
    pack: bool = False


class ModelStore:
    """The folder of model files: ``NAME.onnx``, and beside each ``NAME.onnx.sha256`` in sha256sum's format."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """Where the model ``name`` lies, whether it is there or not."""
        return self.folder / f"{name}.onnx"

    def names(self) -> list[str]:
        """Names of the models present, sorted."""
        return sorted(path.stem for path in self.folder.glob("*.onnx") if not path.name.startswith("."))

    def find(self, reference: str, task: Task) -> Model:
        """The model for ``task`` that ``reference`` means: what :meth:`resolve` takes, the name of a built-in one, or
        the folder of an InsightFace pack.

        Raises:
            ModelError: there is no such model.
            CardError: it has no valid card, or is for another task.
        """
        if reference in BUILT_IN:
            found = Model(BUILT_IN[reference], None)
        elif (folder := Path(reference).expanduser()).is_dir() and (
            _is_path(reference) or (not self.path(reference).is_file() and any(folder.glob("*.onnx")))
        ):
            # Imported here: it builds on this module.
            from models.packs import find_in_pack  # noqa: PLC0415

            found = Model(*find_in_pack(folder, task), pack=True)
        else:
            path = self.resolve(reference)
            found = Model(load_card(path), path)
        if found.card.task != task:
            setting = {"detection": "DETECTOR", "embedding": "EMBEDDER"}[task]
            raise CardError(f"{reference} is a model for {found.card.task}; {setting} needs one for {task}.")
        return found

    def resolve(self, reference: str) -> Path:
        """The model file that ``reference`` means: a name in this folder, or a path to an ``.onnx`` file.

        Raises:
            ModelError: there is no such file.
            CardError: the file carries no valid model card.
        """
        if reference in BUILT_IN:
            raise ModelError(
                f"The model {reference!r} has no file: it is built in. DETECTOR={reference} works as it is."
            )
        is_path = _is_path(reference)
        path = Path(reference).expanduser() if is_path else self.path(reference)
        if path.is_dir():
            raise ModelError(
                f"{path} is a folder, not a model file. Adopt the file that you need out of it: "
                f"`python -m convert adopt {path}/FILE.onnx --preset NAME --output OUT.onnx`, and name OUT.onnx."
            )
        if not path.is_file():
            raise ModelError(self._missing(reference, path, is_path))
        load_card(path)
        return path

    def _missing(self, reference: str, path: Path, is_path: bool) -> str:
        if is_path:
            return f"{path} does not exist. Check the path, or name a model of `python -m models list`."
        present = ", ".join(self.names()) or "none"
        return (
            f"The model {reference!r} is not in {self.folder} (there: {present}). "
            f"Get it with `python -m convert fetch {reference}`; `python -m models list` shows what there is."
        )


def _is_path(reference: str) -> bool:
    return reference.endswith(".onnx") or "/" in reference or "\\" in reference


def sidecar(path: Path) -> Path:
    """The file that holds the sha256 of ``path``."""
    return path.with_name(path.name + SIDECAR_SUFFIX)


def recorded_sha256(path: Path) -> str | None:
    """The sha256 that stands beside ``path``, lower-case hex; None when there is none."""
    try:
        words = sidecar(path).read_text("utf-8").split()
    except (OSError, ValueError):
        return None
    return words[0].lower() if words else None


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_intact(path: Path) -> bool:
    """Whether the file is there and its bytes are those that were written with its sha256."""
    recorded = recorded_sha256(path)
    return recorded is not None and path.is_file() and file_sha256(path) == recorded
