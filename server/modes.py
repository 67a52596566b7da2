"""``/domains/D/mode``: how a domain is searched, changing that at run time, and who did."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any, cast, get_args

from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from matchers.audit import AUTOMATIC, ModeChange
from matchers.modes import GatesClosed, ModeRequest, change_mode
from models.settings import Mode
from server.backend import Backend, enter_domain
from server.errors import ApiError
from server.upload import read_json

_MODES = get_args(Mode)
_FIELDS = frozenset({"mode", "sample", "force"})


class DomainMode(HTTPEndpoint):
    """``/domains/D/mode``."""

    async def get(self, request: Request) -> Response:
        """How the domain is searched, and what its answers say now."""
        backend, domain = enter_domain(request)
        await backend.searches.run(partial(backend.stores.require, domain))
        return JSONResponse(await backend.searches.run(partial(_describe, backend, domain)))

    async def put(self, request: Request) -> Response:
        """Change it, in every worker within a second; 409 when the gates do not let the domain leave PKL."""
        backend, domain = enter_domain(request, "admin")
        asked = _asked(await read_json(request), domain, request.state.caller)
        await backend.searches.run(partial(backend.stores.require, domain))
        if asked.mode != "pkl_only" and backend.stores.pgvector is None and not backend.stores.pgvector_error:
            raise ApiError(409, "pgvector_off", "There is one store only: VECTOR_DB_ENABLED is false.")
        try:
            await backend.writes.run(partial(_change, backend, asked))
        except GatesClosed as error:
            message = f"{str(error).capitalize()}. Send `force: true` to change the mode all the same."
            gates = [asdict(gate) for gate in error.gates]
            raise ApiError(409, "gates_closed", message, details={"gates": gates}) from error
        return JSONResponse(await backend.searches.run(partial(_describe, backend, domain)))


async def mode_history(request: Request) -> Response:
    """Every change of the domain's mode, the newest first: who, when, from what to what, on which figures."""
    backend, domain = enter_domain(request, "admin")
    await backend.searches.run(partial(backend.stores.require, domain))
    changes = await backend.searches.run(partial(backend.audit.read, domain))
    return JSONResponse({"status": "success", "domain": domain, "changes": [asdict(change) for change in changes]})


def _asked(body: dict[str, Any], domain: str, who: str) -> ModeRequest:
    mode, sample, force = body.get("mode"), body.get("sample", 1.0), body.get("force", False)
    share = isinstance(sample, int | float) and not isinstance(sample, bool) and 0 <= sample <= 1
    if mode not in _MODES or not share or not isinstance(force, bool) or body.keys() - _FIELDS:
        message = (
            f'Send {{"mode": "..."}} with one of {", ".join(_MODES)}; with dual perhaps "sample": 0 to 1, the share of '
            'requests that are searched in both stores; and "force": true to pass closed gates.'
        )
        raise ApiError(422, "invalid_body", message)
    return ModeRequest(domain, cast(Mode, mode), who, float(sample), force)


def _change(backend: Backend, asked: ModeRequest) -> ModeChange:
    judge = backend.judge()
    gates = partial(judge.look, asked.domain)
    return change_mode(backend.preferences, backend.audit, asked, backend.default_mode, gates)


def _describe(backend: Backend, domain: str) -> dict[str, Any]:
    changes = backend.audit.read(domain)
    last = next((change for change in changes if change.who != AUTOMATIC), None)
    preferences = backend.preferences.get(domain)
    return {
        "status": "success",
        "domain": domain,
        "mode": backend.mode(domain),
        "sample": preferences.sample,
        "default": preferences.mode is None,
        "answering": backend.answering(domain),
        "since": None if last is None or preferences.mode is None else last.at,
        "set_by": None if last is None or preferences.mode is None else last.who,
    }
