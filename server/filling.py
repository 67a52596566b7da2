"""Filling a domain over HTTP: a job that is started with a POST and followed as server-sent events, from any worker."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from matchers.jobs import Job, JobFolder, is_job_id
from matchers.sync import SyncReport, sync_folder
from server.backend import Backend, backend_of, enter_domain
from server.errors import ApiError
from server.jobs import Progress, Work

_LOOK_SECONDS = 0.25
_ALIVE_SECONDS = 10.0
# A browser comes back by itself. A stream without an end would hold up the end of the server.
_STREAM_SECONDS = 30.0
_RETRY_MILLISECONDS = 500


async def start_sync(request: Request) -> Response:
    """Bring the folder ``IMAGES_DIR/D`` of the server into both stores; 202 with the job that does it."""
    backend, domain = enter_domain(request, "admin")
    if backend.images_dir is None:
        message = "IMAGES_DIR is not set. Set it to the server's folder that holds one folder of pictures per domain."
        raise ApiError(422, "no_images_dir", message)
    folder = backend.images_dir / domain
    if not await run_in_threadpool(folder.is_dir):
        raise ApiError(422, "folder_unusable", f"IMAGES_DIR holds no folder `{domain}`.")
    return await _started(backend, domain, "sync", partial(_sync, backend, domain, folder))


async def show_job(request: Request) -> Response:
    """How far a job is."""
    _, job = await _asked(request)
    return JSONResponse({"status": "success", "job": asdict(job)})


async def job_events(request: Request) -> Response:
    """A stream of server-sent events: ``progress`` while it runs, then ``done`` or ``failed``."""
    folder, job = await _asked(request)
    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(_events(request, folder, job), media_type="text/event-stream", headers=headers)


async def _asked(request: Request) -> tuple[JobFolder, Job]:
    backend = backend_of(request)
    caller = backend.tokens.check(request.headers.get("authorization"), "admin")
    name = request.path_params["job"]
    if not is_job_id(name):
        raise ApiError(422, "invalid_name", "A job's id has 32 hexadecimal digits.")
    job = await run_in_threadpool(backend.jobs.folder.read, name)
    if job is None:
        raise ApiError(404, "unknown_job", "There is no such job. Reports are kept for a day.")
    caller.enter(job.domain)
    return backend.jobs.folder, job


async def _started(backend: Backend, domain: str, kind: str, work: Work) -> Response:
    job = await run_in_threadpool(backend.jobs.start, domain, kind, work)
    return JSONResponse({"status": "success", "job": asdict(job)}, 202)


def _sync(backend: Backend, domain: str, folder: Path, progress: Progress) -> Mapping[str, Any]:
    report = sync_folder(
        backend.engine, backend.stores, domain, folder, progress, keep_thumbnails=backend.keep_thumbnails
    )
    return _sync_report(report)


def _sync_report(report: SyncReport) -> Mapping[str, Any]:
    pkl = report.stores["pkl"]
    return {
        "pictures": report.pictures,
        "added": pkl.new,
        "updated": pkl.changed,
        "removed": pkl.removed,
        "unchanged": pkl.unchanged,
        "kept": report.kept,
        "skipped": [asdict(problem) for problem in report.problems],
        "stores": {name: asdict(store) for name, store in report.stores.items()},
        "complete": report.complete,
    }


async def _events(request: Request, folder: JobFolder, job: Job) -> AsyncGenerator[str, None]:
    yield f"retry: {_RETRY_MILLISECONDS}\n\n"
    end = time.monotonic() + _STREAM_SECONDS
    told, told_at = "", time.monotonic()
    while True:
        if job.state == "done":
            yield _event("done", {"report": job.report})
            return
        if job.state == "failed":
            yield _event("failed", {"error": job.error})
            return
        event = _event("progress", {"done": job.done, "total": job.total})
        now = time.monotonic()
        if event != told:
            yield event
            told, told_at = event, now
        elif now - told_at > _ALIVE_SECONDS:
            yield ": alive\n\n"
            told_at = now
        if now > end or not request.app.state.ready:
            return
        await asyncio.sleep(_LOOK_SECONDS)
        fresh = await run_in_threadpool(folder.read, job.id)
        if fresh is None:
            yield _event("failed", {"error": {"code": "unknown_job", "message": "The job's report was deleted."}})
            return
        job = fresh


def _event(name: str, data: Mapping[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False, allow_nan=False)}\n\n"
