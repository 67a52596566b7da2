"""Nothing about the models, the machine or its use is told to anybody else."""

from __future__ import annotations

import os


def keep_silent() -> None:
    """Turn off what ONNX Runtime, from 1.29 on, sends to its maker by default: names and hashes of model files, times,
    and an id of the machine that it keeps under ``~/.cache``.

    Must be called before ``onnxruntime`` is imported, which looks once; who has set ``ORT_DISABLE_TELEMETRY`` has
    decided.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
