"""What the packages must not drag in, and which way they may import each other."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = ("tensorflow", "keras", "torch")
ALLOWED = {
    "models": set(),
    "runtime": {"models"},
    "matchers": {"models", "runtime"},
    "server": {"models", "runtime", "matchers"},
    "convert": {"models", "runtime"},
}

IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
for package in ("models", "runtime", "matchers", "server"):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
import server.__main__, matchers.__main__
print(sorted(sys.modules.keys() & {"tensorflow", "keras", "torch", "tf_keras", "insightface", "convert"}))
"""


def test_the_service_imports_no_training_framework() -> None:
    result = subprocess.run([sys.executable, "-c", IMPORT_EVERYTHING], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def test_the_server_says_what_is_wrong_before_it_loads_what_it_serves_with(
    plain_environment: Mapping[str, str], tmp_path: Path
) -> None:
    program = """
import sys
from server.command import main
assert main(["--host", "192.0.2.1"]) == 2
print(sorted(sys.modules.keys() & {"cv2", "onnx", "onnxruntime", "psycopg", "uvicorn"}))
"""
    environment = {**plain_environment, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, "[]"), result.stderr
    assert "API_TOKENS" in result.stderr


def test_the_default_install_has_no_training_framework() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    listed = [*project["dependencies"], *extras["cpu"], *extras["embedded"], *extras["dev"]]
    assert not [name for name in listed if name.startswith(FORBIDDEN)]


def test_pip_lists_no_training_framework() -> None:
    command = [sys.executable, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.lower().split()
    assert not [line for line in listed if line.startswith(FORBIDDEN)]


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_packages_import_downwards_only(package: str) -> None:
    wrong = []
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                names = [node.module]
            tops = {name.partition(".")[0] for name in names}
            wrong += [f"{path.name} imports {top}" for top in tops & ALLOWED.keys() - ALLOWED[package] - {package}]
    assert not wrong


def test_only_convert_may_import_tensorflow() -> None:
    wrong = []
    for package in ("models", "runtime", "matchers", "server"):
        for path in (ROOT / package).rglob("*.py"):
            tree = ast.parse(path.read_text("utf-8"))
            names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
            names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
            wrong += [f"{path}: {name}" for name in names if name.partition(".")[0] in FORBIDDEN]
    assert not wrong
