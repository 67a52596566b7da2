"""Filling a domain over HTTP: a job that is started with a POST and followed as server-sent events, from any worker."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from matchers.formats import format_of
from matchers.gallery_names import TRAITS, check_name, parse_name
from matchers.importing import IMPORT_STAGES, GalleryFile, Stage, import_gallery
from matchers.jobs import Job, JobFolder, is_job_id
from matchers.sync import SyncReport, sync_folder
from server.backend import Backend, backend_of, enter_domain
from server.errors import ApiError
from server.gallery_upload import receive_gallery
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


async def start_import(request: Request) -> Response:
    """Bring a gallery file of DeepFace into both stores; 202 with the job that does it."""
    backend, domain = enter_domain(request, "admin")
    options = _ImportOptions.of(request)
    embedder, detector = backend.engine.embedder_card, backend.engine.detector_card.name

    def check(name: str) -> None:
        format_of(name)
        check_name(parse_name(name), embedder, detector, options.accept)

    folder = backend.stores.data_dir / "uploads"
    gallery = await receive_gallery(request, folder, backend.upload_timeout, check)
    try:
        return await _started(backend, domain, "import", partial(_import, backend, domain, gallery, options))
    except BaseException:
        gallery.file.close()
        raise


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


@dataclass(frozen=True, slots=True)
class _ImportOptions:
    """``accept``: traits that may differ; ``roots``: folders above the people, as the file has them."""

    accept: tuple[str, ...]
    roots: tuple[str, ...]

    @classmethod
    def of(cls, request: Request) -> _ImportOptions:
        accept = tuple(request.query_params.getlist("accept"))
        unknown = [trait for trait in accept if trait not in TRAITS]
        if unknown:
            message = f"`accept` takes {', '.join(TRAITS)}, not {unknown[0][:50]!r}."
            raise ApiError(422, "invalid_accept", message)
        return cls(accept, tuple(filter(None, request.query_params.getlist("root"))))


def _import(
    backend: Backend, domain: str, gallery: GalleryFile, options: _ImportOptions, progress: Progress
) -> Mapping[str, Any]:
    with gallery.file:
        report = import_gallery(
            backend.stores,
            backend.engine.embedder_card,
            backend.engine.detector_card.name,
            domain,
            gallery,
            stage=_percent(progress, IMPORT_STAGES),
            accept=options.accept,
            roots=options.roots,
        )
    pkl = report.stores["pkl"]
    return {
        "file": report.file,
        "format": report.format,
        "made_with": asdict(report.made_with),
        "faces": report.faces,
        "people": report.people,
        "added": pkl.new,
        "updated": pkl.changed,
        "removed": 0,
        "unchanged": pkl.unchanged,
        "skipped": [asdict(problem) for problem in report.skipped],
        "warnings": list(report.warnings),
        "stores": {name: asdict(store) for name, store in report.stores.items()},
        "complete": report.complete,
    }


def _percent(progress: Progress, stages: int) -> Stage:
    """Stages of equal weight, told as per cent of the whole."""
    begun = -1

    def stage(_text: str) -> Progress:
        nonlocal begun
        begun += 1
        before = begun

        def notify(done: int, total: int) -> None:
            part = min(done / total, 1.0) if total else 0.0
            progress(int(100 * (before + part) / stages), 100)

        return notify

    return stage


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
