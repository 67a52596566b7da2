"""Published weights to the file that the runtime serves: repaired, with a card, proven equal to its source."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import onnx

from convert.batchnorm_passes import (
    fold_batchnorm_after_conv,
    fold_batchnorm_after_gemm,
    fold_batchnorm_before_conv,
    fold_batchnorm_before_gemm,
)
from convert.errors import RepairError
from convert.parity import SourceNetwork, compare_networks
from convert.passes import apply, copy_model, drop_passthrough, fold_constants, lower_opset, name_batch, prune
from models.card import METADATA_KEY, ModelCard
from models.versions import installed_versions

OPSET, IR_VERSION = 17, 8
PASSES = (
    fold_constants,
    drop_passthrough,
    prune,
    fold_batchnorm_after_conv,
    fold_batchnorm_before_conv,
    fold_batchnorm_before_gemm,
    fold_batchnorm_after_gemm,
    prune,
)


def repair(model: onnx.ModelProto, any_batch: bool) -> onnx.ModelProto:
    """The same network with its weights stored as they are used, without stale inputs, in an opset that all admit.

    Args:
        any_batch: also let the first dimension of inputs and outputs have any length.

    Raises:
        RepairError: a pass cannot treat the network, or the result is no valid ONNX.
    """
    try:
        repaired = lower_opset(apply(model, PASSES), OPSET, IR_VERSION)
        if any_batch:
            repaired = name_batch(repaired)
        onnx.checker.check_model(repaired, full_check=True)
    except Exception as error:
        raise RepairError(f"The network cannot be repaired: {str(error).splitlines()[0][:300]}.") from error
    return repaired


def with_card(model: onnx.ModelProto, card: ModelCard) -> bytes:
    """The ONNX file of ``model`` with ``card`` in its metadata, in place of a card that it had."""
    copy = copy_model(model)
    others = {entry.key: entry.value for entry in copy.metadata_props if entry.key != METADATA_KEY}
    onnx.helper.set_model_props(copy, others | {METADATA_KEY: card.to_json()})
    data: bytes = copy.SerializeToString(deterministic=True)
    return data


def make_model(source: bytes, card: ModelCard, versions: Mapping[str, str]) -> bytes:
    """Repair ``source``, prove it equal, and return the file with its card, parity and versions filled in.

    Raises:
        RepairError: the source is not a network that can be repaired.
        ParityError: the repaired network gives other outputs.
        ModelError: the runtime cannot open the repaired file.
    """
    original = SourceNetwork(source)
    repaired = repair(onnx.load_model_from_string(source), any_batch=card.task == "embedding")
    card = replace(card, versions={**versions, **tool_versions()})
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / "trial.onnx"
        trial.write_bytes(with_card(repaired, card))
        parity = compare_networks(original, trial, card)
    parity.require()
    return with_card(repaired, replace(card, parity=parity.figures()))


def change_card(data: bytes, card: ModelCard) -> bytes:
    """The ONNX file ``data`` with another card."""
    return with_card(onnx.load_model_from_string(data), card)


def tool_versions() -> dict[str, str]:
    """Versions of the packages that write and run ONNX here."""
    return installed_versions(("onnx", "onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"))
