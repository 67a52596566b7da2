"""The model card survives its trip through a file and refuses what is not one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.card import METADATA_KEY, ModelCard, load_card, read_card
from models.errors import CardError

finite = st.floats(allow_nan=False, allow_infinity=False)
triple = st.tuples(finite, finite, finite)
cards = st.builds(
    ModelCard,
    name=st.text(),
    task=st.just("embedding"),
    family=st.text(),
    layout=st.sampled_from(["NCHW", "NHWC"]),
    colour=st.sampled_from(["RGB", "BGR"]),
    mean=triple,
    scale=triple,
    input_size=st.tuples(st.integers(0, 4096), st.integers(0, 4096)),
    dimension=st.integers(1, 4096),
    alignment=st.sampled_from(["similarity", "deepface", "deepface-opencv5", "none"]),
    licence=st.text(),
    origin=st.text(),
    origin_sha256=st.text(),
    template_shift=st.tuples(finite, finite),
    threshold=st.floats(0, 2),
    threshold_origin=st.text(),
    space=st.text(),
    versions=st.dictionaries(st.text(), st.text()),
    parity=st.dictionaries(st.text(), finite),
    notes=st.text(),
    precision=st.sampled_from(["fp32", "fp16", "int8"]),
    compatible_space=st.text(),
    measured=st.dictionaries(st.text(), finite | st.text()),
)

CARD = ModelCard(
    name="tiny",
    task="embedding",
    family="embedding",
    layout="NCHW",
    colour="RGB",
    mean=(0.0, 0.0, 0.0),
    scale=(1.0, 1.0, 1.0),
    input_size=(4, 4),
    dimension=2,
    alignment="similarity",
    licence="MIT",
    origin="tiny.bin",
    origin_sha256="0" * 64,
    threshold=0.5,
)


def save(path: Path, **metadata: str) -> None:
    value = onnx.helper.make_tensor_value_info
    weights = onnx.numpy_helper.from_array(np.ones(70_000, np.float32), "w")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "w"], ["y"])],
        "tiny",
        [value("x", onnx.TensorProto.FLOAT, [1])],
        [value("y", onnx.TensorProto.FLOAT, [70_000])],
        [weights],
    )
    model = onnx.helper.make_model(graph, producer_name="a test", doc_string="something to skip")
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, path)


@given(cards)
def test_json_round_trip(card: ModelCard) -> None:
    assert ModelCard.from_json(card.to_json()) == card


@given(card=cards)
def test_read_from_a_file_as_onnx_itself_reads_it(card: ModelCard, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("cards") / "tiny.onnx"
    # Protobuf strings are UTF-8, which lone surrogates are not; JSON text of a card escapes none of them.
    text = card.to_json().encode("utf-8", "replace").decode()
    save(path, **{METADATA_KEY: text, "other": "x"})
    assert load_card(path) == ModelCard.from_json(text)
    assert onnx.load(path).metadata_props[0].value == text


def test_a_file_without_card_is_refused_with_the_command_that_adds_one(tmp_path: Path) -> None:
    path = tmp_path / "bare.onnx"
    save(path, other="x")
    with pytest.raises(CardError, match=r"bare\.onnx carries no model card.*python -m convert adopt .*bare\.onnx"):
        load_card(path)
    with pytest.raises(CardError, match="python -m convert adopt"):
        read_card({}, path)


@pytest.mark.parametrize("keep", [0, 1, 500, -1])
def test_a_cut_off_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "cut.onnx"
    save(path, **{METADATA_KEY: CARD.to_json()})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CardError, match=r"cut\.onnx"):
        load_card(path)


@given(data=st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_but_card_errors(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("noise") / "noise.onnx"
    path.write_bytes(data)
    with pytest.raises(CardError):
        load_card(path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("task", "guessing", "task is 'guessing'"),
        ("layout", "HWC", "layout is 'HWC'"),
        ("mean", [1, 2], "mean must hold 3 numbers"),
        ("scale", [1, 2, "three"], "scale must hold finite numbers"),
        ("threshold", None, "needs a dimension and a threshold"),
        ("dimension", 0, "needs a dimension and a threshold"),
    ],
)
def test_values_that_are_not_admitted(field: str, value: Any, message: str) -> None:
    raw = json.loads(CARD.to_json()) | {field: value}
    with pytest.raises(CardError, match=message):
        ModelCard.from_json(json.dumps(raw))


def test_a_missing_field_is_named() -> None:
    raw = json.loads(CARD.to_json())
    del raw["licence"]
    with pytest.raises(CardError, match="licence"):
        ModelCard.from_json(json.dumps(raw))


def test_fields_of_later_versions_are_passed_over() -> None:
    raw = json.loads(CARD.to_json()) | {"from_the_future": 1}
    assert ModelCard.from_json(json.dumps(raw)) == CARD
