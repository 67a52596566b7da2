"""An ONNX file with a card to another in a lower precision."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import onnx

from convert.adopt import read_source
from convert.errors import ConvertError, PrecisionError
from convert.export import Exported, write_report
from convert.precision import PrecisionOptions, apply_precision
from convert.repair import with_card
from convert.write import write_model
from models.card import load_card
from models.presets import Changes


def change_precision(
    source: Path,
    output: Path,
    precision: Literal["fp16", "int8"],
    options: PrecisionOptions,
    *,
    changes: Changes,
    report: Path | None = None,
) -> Exported:
    """Write an fp32 ONNX file with a card in another precision; nothing is written unless every gate holds.

    Args:
        source: an ONNX file with a card.
        output: where to.
        precision: which.
        options: how.
        changes: what the card should say instead.
        report: where to write the figures as JSON, also when a gate does not hold.

    Raises:
        ConvertError: it is no such file, does not pass the gates, or cannot be written.
        ModelError: the file has no card.
    """
    data = read_source(source)
    if output.exists() and output.samefile(source):
        raise ConvertError(f"{output} is the file to export. Name another with --output, so that the original stays.")
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:
        raise ConvertError(f"{source} is no ONNX file; only ONNX files with a model card can be exported.") from error
    card = load_card(source)
    card = replace(card, **{key: value for key, value in asdict(changes).items() if value is not None})
    options = replace(options, source_sha256=hashlib.sha256(data).hexdigest())
    try:
        made = apply_precision(model, card, precision, options)
    except PrecisionError as error:
        if report is not None and error.figures:
            write_report(report, error.figures)
        raise
    digest = write_model(output, with_card(made.model, made.card))
    if report is not None:
        write_report(report, made.figures)
    return Exported(output, digest, made.card, made.figures)
