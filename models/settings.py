"""The one configuration object, read at the edges (server and command lines) and handed down as plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.errors import SettingsError

Mode = Literal["pkl_only", "pgvector_only", "dual"]
ExecutionProvider = Literal["auto", "cpu", "cuda", "openvino"]
InferencePrecision = Literal["fp32", "bf16"]

ENV_FILE = ".env"
"""In the working directory."""


class Settings(BaseSettings):
    """Environment variables of the same names in capitals, then ``.env``, then these defaults."""

    model_config = SettingsConfigDict(env_file=ENV_FILE, env_file_encoding="utf-8-sig", extra="ignore")

    data_dir: Path = Field(Path("data"), description="galleries, embedded PostgreSQL, journals")
    models_dir: Path | None = Field(None, description="model files; default: DATA_DIR/models")
    database_url: str = Field("", description="PostgreSQL with pgvector; empty: the embedded server under DATA_DIR")
    detector: str = Field("retinaface", description="catalog name, card'ed .onnx path, or InsightFace pack folder")
    embedder: str = Field("sface", description="catalog name, card'ed .onnx path, or InsightFace pack folder")
    execution_provider: ExecutionProvider = Field("auto", description="auto, cpu, cuda or openvino")
    inference_precision: InferencePrecision = Field("fp32", description="of the embedder on OpenVINO: fp32 or bf16")
    inference_threads: int = Field(
        0, ge=0, le=256, description="threads of one run on the CPU; 0: all cores alone, one each in a crowd"
    )
    vector_db_enabled: bool = Field(True, description="false: every domain answers from PKL only")
    vector_db_dual_mode: bool = Field(True, description="true: search PKL and pgvector and compare")
    vector_db_use_pgvector_only: bool = Field(False, description="true: answer from pgvector only")
    match_threshold: float | None = Field(None, ge=0, le=2, description="cosine distance; default: the card's")
    top_k: int = Field(10, ge=1, le=1000, description="how many nearest faces an answer lists")
    pgvector_timeout: float = Field(10.0, gt=0, description="seconds")
    api_tokens: SecretStr = Field(SecretStr(""), description="comma-separated tokens; empty: no token is asked for")
    gate_comparisons: int = Field(50, ge=1, description="comparisons asked for before pgvector may answer alone")
    gate_top1_rate: float = Field(0.99, ge=0, le=1, description="share that must name the same person first")
    gate_top5_overlap: float = Field(0.98, ge=0, le=1, description="mean overlap of the first five that is asked for")
    gate_failure_rate: float = Field(0.01, ge=0, le=1, description="share of pgvector searches that may fail")
    gate_in_sync: bool = Field(True, description="whether both stores must hold the same pictures")
    comparison_retention_days: float = Field(7.0, gt=0, le=3650, description="how long comparisons of dual are kept")
    comparison_limit: int = Field(200_000, ge=1, description="comparisons kept of each domain at most, the newest")
    comparison_journal_mb: int = Field(64, ge=0, description="MiB of comparisons that wait while PostgreSQL is away")
    pgvector_failures: int = Field(3, ge=1, description="failures in a row after which pgvector is left alone")
    api_tokens_file: Path | None = Field(None, description="TOML file of tokens with names, rights and domains")
    rate_limit: float = Field(0.0, ge=0, description="requests a second of each token; 0: no limit")
    log_format: Literal["text", "json"] = Field("text", description="log lines for people, or one JSON object each")
    drain_seconds: float = Field(2.0, ge=0, description="seconds between SIGTERM and the end of listening")
    upload_timeout: float = Field(30.0, gt=0, description="seconds that a client may take to send its picture")
    images_dir: Path | None = Field(None, description="folder with one folder of pictures per domain, for POST sync")
    keep_thumbnails: bool = Field(True, description="keep a small picture of each enrolled face")
    default_domain: str = Field("demo", description="domain of requests that name none")

    @property
    def models_path(self) -> Path:
        """Folder that holds the model files."""
        return self.models_dir if self.models_dir is not None else self.data_dir / "models"

    @property
    def default_mode(self) -> Mode:
        """Mode of a domain for which none was set."""
        if not self.vector_db_enabled:
            return "pkl_only"
        if self.vector_db_use_pgvector_only:
            return "pgvector_only"
        return "dual" if self.vector_db_dual_mode else "pkl_only"


def read_settings(**chosen: Any) -> Settings:
    """The settings of this process; ``chosen`` takes precedence over the environment and ``.env``.

    Raises:
        SettingsError: one is wrong, or ``.env`` cannot be read.
    """
    try:
        return Settings(**chosen)
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False, include_context=False)
        wrong = (f"{'.'.join(map(str, problem['loc'])).upper()}: {problem['msg']}" for problem in problems)
        # The cause would quote values, tokens among them.
        raise SettingsError("; ".join(wrong)) from None
    except UnicodeDecodeError:
        raise SettingsError(f"{ENV_FILE} is no text in UTF-8") from None
    except OSError as error:
        raise SettingsError(f"{ENV_FILE} cannot be read: {error.strerror}") from error
