"""What ``/openapi.json`` shows people: every endpoint stands in a group and has an example, as its schema says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import jsonschema
import pytest

API: dict[str, Any] = json.loads(files("server").joinpath("openapi.json").read_text("utf-8"))
OPERATIONS = {
    operation["operationId"]: operation
    for item in API["paths"].values()
    for method, operation in item.items()
    if method != "parameters"
}


def contents(operation: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What may be sent and what is answered when all goes well, with its media type."""
    yield from operation.get("requestBody", {}).get("content", {}).items()
    for status, answer in operation["responses"].items():
        if status.startswith("2"):
            yield from answer.get("content", {}).items()


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_endpoint_stands_in_a_group_and_has_examples(name: str) -> None:
    operation = OPERATIONS[name]
    (tag,) = operation["tags"]
    assert tag in [group["name"] for group in API["tags"]]
    assert operation["summary"]
    for parameter in operation.get("parameters", ()):
        assert parameter["in"] != "path" or "example" in parameter, parameter["name"]
    for media_type, content in contents(operation):
        if media_type == "application/json":
            validator = jsonschema.Draft202012Validator({**content["schema"], "components": API["components"]})
            validator.validate(content["example"])
        elif media_type == "multipart/form-data":
            fields = content["schema"]["properties"].values()
            assert all("examples" in field or "examples" in field["items"] for field in fields)
        else:
            assert "example" in content or media_type.startswith("image/")
