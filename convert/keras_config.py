"""What a whole Keras model says of itself, read without Keras: its version, and that nothing in it would run code.

A ``Lambda`` layer is Python code in the file. Keras refuses it in ``.keras`` files, but its loader of legacy ``.h5``
files runs it whatever ``safe_mode`` says (CVE-2025-9905), and a class of any module may be named in either.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from convert.errors import WeightsError
from convert.weights import Kind, json_member, open_hdf5, readable

_RUN_CODE = frozenset(
    {
        "Lambda",
        "__lambda__",
        "ClassMethod",
        "InstanceMethod",
        "TFSMLayer",
        "TorchModuleWrapper",
        "JaxLayer",
        "FlaxLayer",
    }
)
_PURE_TENSORFLOW = ("math.", "nn.", "__operators__.")
"""Functions of TensorFlow that a ``TFOpLambda`` may name: they compute and touch nothing else."""

_KERAS = r"(tf_keras|keras|tensorflow\.keras)(\.src)?"
_HARMLESS = re.compile(
    rf"{_KERAS}(\.engine)?\.(layers|initializers|regularizers|constraints|activations|ops|dtype_policies|mixed_precision)"
    r"(\.\w+)*"
)
_MODELS = re.compile(rf"{_KERAS}(\.models|\.engine)?(\.(functional|sequential|training|model|models))?")
_MODEL_CLASSES = frozenset({"Functional", "Model", "Sequential", "DTypePolicy", "Policy"})
_FUNCTION_MODULES = re.compile(rf"builtins|{_KERAS}\.activations(\.\w+)*")
_VALUES = frozenset(
    {"__keras_tensor__", "__tensor__", "__numpy__", "__tuple__", "__slice__", "__ellipsis__", "__bytes__"}
)


def keras_version(path: Path, kind: Kind) -> int:
    """Major version of the Keras that wrote a whole model: 2 or 3.

    Raises:
        WeightsError: the file is damaged, or loading it would run code that it holds; the layer is named.
    """
    config, version = _read(path, kind)
    for part, layer in _described(config, "the model"):
        reason = _runs_code(part)
        if reason:
            raise WeightsError(
                f"{path} is refused, since loading it would run code that it holds: {layer} is {reason}. Save the "
                "network without that layer, or its weights alone."
            )
    return 3 if version.startswith("3") else 2


def _read(path: Path, kind: Kind) -> tuple[Any, str]:
    with readable(path, "Keras model"):
        if kind is Kind.LEGACY_MODEL:
            with open_hdf5(path) as file:
                config, version = file.attrs["model_config"], file.attrs.get("keras_version", "2")
                return json.loads(config), version.decode() if isinstance(version, bytes) else str(version)
        with zipfile.ZipFile(path) as archive:
            about = json_member(archive, "metadata.json") if "metadata.json" in archive.namelist() else {}
            return json_member(archive, "config.json"), str(about.get("keras_version", "3"))


def _described(value: Any, layer: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Every object that a configuration describes, and the layer in which it stands."""
    if isinstance(value, list):
        for item in value:
            yield from _described(item, layer)
    elif isinstance(value, dict):
        if "class_name" in value:
            name = value.get("name")
            layer = f"the layer {name}" if isinstance(name, str) else layer
            yield value, layer
        for item in value.values():
            yield from _described(item, layer)


def _runs_code(part: Mapping[str, Any]) -> str:
    """What is wrong with an object of a configuration; "" when nothing is."""
    name, module, config = part["class_name"], part.get("module"), part.get("config")
    if not isinstance(name, str) or not isinstance(module, str | None):
        return "described by something else than a name"
    if name == "TFOpLambda":
        function = config.get("function") if isinstance(config, dict) else None
        return "" if str(function).startswith(_PURE_TENSORFLOW) else f"a call of {function}"
    return "" if name in _VALUES or _is_harmless(name, module) else f"{name} of {module or 'the file'}"


def _is_harmless(name: str, module: str | None) -> bool:
    """Whether a class or function of Keras computes and does nothing else."""
    if name == "function":
        return module is None or bool(_FUNCTION_MODULES.fullmatch(module))
    if module is None or _HARMLESS.fullmatch(module):
        return name[:1].isupper() and name not in _RUN_CODE
    return bool(_MODELS.fullmatch(module)) and name in _MODEL_CLASSES
