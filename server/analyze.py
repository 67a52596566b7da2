"""``POST /analyze``: who is in this picture?"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from matchers.answer import analyze_answer
from matchers.dual import Outcome
from matchers.languages import Language
from matchers.names import domain_name
from models.settings import Mode
from runtime.faces import Analysis
from server.backend import Backend, backend_of
from server.errors import EXPECTED, api_error
from server.presence import while_there
from server.upload import read_picture


async def analyze(request: Request) -> Response:
    """Answers as the design's contract says; see ``matchers.answer`` for the fields."""
    backend = backend_of(request)
    try:
        answer, language = await _analyze(request, backend)
    except EXPECTED as cause:
        error = api_error(cause)
        backend.metrics.refused(getattr(request.state, "mode", "none"), error.code)
        return error.response()
    people = [face["person"] for face in answer["faces"]]
    known = sum(person is not None for person in people)
    backend.metrics.answered(answer["mode"], answer["timing_ms"], known, len(people) - known)
    return JSONResponse(answer, headers={"Content-Language": language.tag})


def asked_language(request: Request, backend: Backend) -> Language:
    """The language of the query's ``language``, else of ``Accept-Language`` as far as it is there, else English.

    Raises:
        UnknownLanguage: the query names one that is not there.
    """
    name = request.query_params.get("language")
    return backend.languages.find(name) if name else backend.languages.preferred(request.headers.get("accept-language"))


async def _analyze(request: Request, backend: Backend) -> tuple[dict[str, Any], Language]:
    start = time.perf_counter()
    caller = backend.tokens.check(request.headers.get("authorization"))
    request.state.caller = caller.name
    backend.inference.check_room()
    domain = domain_name(request.query_params.get("domain") or backend.default_domain)
    caller.enter(domain)
    language = asked_language(request, backend)
    mode = request.state.mode = backend.mode_of_request(domain)
    threshold = backend.threshold(domain)
    with backend.intake.upload() as incoming:
        data = await read_picture(request, incoming, backend.engine.limits.max_bytes, backend.upload_timeout)
        analysis, outcome = await while_there(request, _recognise(backend, data, domain, mode, threshold))
    request.state.faces = len(analysis.detections)
    backend.metrics.searched(outcome, threshold)
    answer = analyze_answer(
        analysis,
        outcome,
        domain=domain,
        language=language,
        language_name=request.query_params.get("language", ""),
        threshold=threshold,
        top_k=backend.top_k,
    )
    request.state.mode = outcome.mode
    answer["timing_ms"]["total"] = round((time.perf_counter() - start) * 1000, 3)
    return answer, language


async def _recognise(
    backend: Backend, data: bytes, domain: str, mode: Mode, threshold: float
) -> tuple[Analysis, Outcome]:
    analysis = await backend.inference.run(partial(backend.engine.analyze, data))
    searched_at = time.time()
    outcome = await backend.searches.run(
        partial(backend.searcher.search, analysis.embeddings, domain, mode, backend.top_k, threshold)
    )
    backend.recorder.record(outcome, domain, threshold, searched_at)
    return analysis, outcome
