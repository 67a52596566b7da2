"""``/domains/D/people``: who is enrolled; enrolling, renaming and deleting people and faces."""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from matchers.base import Entry
from matchers.enrol import SOFT, Candidate, Enrolment, Refused, Remark, enrol, examine
from matchers.names import person_name
from matchers.people import Census, KnownFace, Removed, census, delete_face, delete_person, folded, rename_person
from server.backend import Backend, enter_domain
from server.errors import ApiError
from server.presence import while_there
from server.upload import Upload, read_json, read_pictures

_FIRST_FACES = 4
_MAX_LIMIT = 1000


async def people(request: Request) -> Response:
    """Everybody in the domain whose name holds ``search``, by name, ``limit`` of them from ``offset`` on."""
    backend, domain = enter_domain(request)
    limit, offset = _number(request, "limit", 100, _MAX_LIMIT), _number(request, "offset", 0, 10**9)
    search = folded(request.query_params.get("search", ""))
    everybody = await backend.searches.run(partial(census, backend.stores, domain))
    names = [name for name in everybody.people if search in folded(name)]
    body = {
        "status": "success",
        "domain": domain,
        "total": len(names),
        "unavailable": everybody.unavailable,
        "people": [_summary(backend, everybody, name) for name in names[offset : offset + limit]],
    }
    return JSONResponse(body)


class Person(HTTPEndpoint):
    """``/domains/D/people/P``."""

    async def get(self, request: Request) -> Response:
        """The faces of a person."""
        backend, domain = enter_domain(request)
        person = _person(request)
        everybody = await backend.searches.run(partial(census, backend.stores, domain))
        return JSONResponse(_person_body(backend, everybody, person))

    async def post(self, request: Request) -> Response:
        """Enrol pictures: 201 for a new person, 200 for one more picture, 422 when every picture was refused."""
        backend, domain = enter_domain(request, "enrol")
        person, allow = _person(request), _allowed(request)
        backend.inference.check_room()
        await backend.searches.run(partial(backend.stores.require, domain))
        with backend.intake.upload() as incoming:
            limit = backend.engine.limits.max_bytes
            uploads = await read_pictures(request, incoming, limit, backend.upload_timeout)
            candidates, refused = await while_there(request, _examine(backend, uploads, allow))
        report = None
        if candidates:
            work = partial(
                enrol,
                backend.stores,
                domain,
                person,
                candidates,
                backend.threshold(domain),
                allow=allow,
                keep_thumbnails=backend.keep_thumbnails,
            )
            report = await backend.writes.run(work)
            refused += report.refused
        left_out = [_refusal(one) for one in refused]
        if report is None or not report.enrolled:
            message = f"No picture of {len(uploads)} could be enrolled: {refused[0].remark.message}"
            raise ApiError(422, "nothing_enrolled", message, details={"refused": left_out})
        return JSONResponse(_enrolled_body(person, report, left_out), 201 if report.new_person else 200)

    async def patch(self, request: Request) -> Response:
        """Rename a person, or merge two."""
        backend, domain = enter_domain(request, "enrol")
        person = _person(request)
        body = await read_json(request)
        name, merge = body.get("person"), body.get("merge", False)
        if not isinstance(name, str) or not isinstance(merge, bool) or body.keys() - {"person", "merge"}:
            raise ApiError(422, "invalid_body", 'Send {"person": "new name"}, and "merge": true to join two people.')
        name = person_name(name)
        await backend.searches.run(partial(backend.stores.require, domain))
        await backend.writes.run(partial(rename_person, backend.stores, domain, person, name, merge=merge))
        everybody = await backend.searches.run(partial(census, backend.stores, domain))
        return JSONResponse(_person_body(backend, everybody, name))

    async def delete(self, request: Request) -> Response:
        """Delete a person with every trace, in both stores."""
        backend, domain = enter_domain(request, "enrol")
        person = _person(request)
        await backend.searches.run(partial(backend.stores.require, domain))
        removed = await backend.writes.run(partial(delete_person, backend.stores, domain, person))
        return JSONResponse(_removed_body(person, removed))


class Face(HTTPEndpoint):
    """``/domains/D/people/P/faces/F``."""

    async def delete(self, request: Request) -> Response:
        """Delete one face with every trace, in both stores."""
        backend, domain = enter_domain(request, "enrol")
        person, face = _person(request), request.path_params["face"]
        await backend.searches.run(partial(backend.stores.require, domain))
        removed = await backend.writes.run(partial(delete_face, backend.stores, domain, person, face))
        return JSONResponse(_removed_body(person, removed))


async def thumbnail(request: Request) -> Response:
    """The small picture of a face."""
    backend, domain = enter_domain(request)
    person, face = _person(request), request.path_params["face"]
    everybody = await backend.searches.run(partial(census, backend.stores, domain))
    known = everybody.face(person, face)
    data = await backend.searches.run(partial(backend.stores.thumbnails.read, domain, known.entry.id))
    if data is None:
        message = "No small picture is kept of this face: it was imported, or KEEP_THUMBNAILS is off."
        raise ApiError(404, "no_thumbnail", message)
    return Response(data, media_type="image/jpeg")


async def _examine(
    backend: Backend, uploads: list[Upload], allow: frozenset[str]
) -> tuple[list[Candidate], list[Refused]]:
    """One picture after the other, so that a request never takes more than its share of the models."""
    candidates: list[Candidate] = []
    refused: list[Refused] = []
    for upload in uploads:
        found = await backend.inference.run(partial(examine, backend.engine, upload.name, upload.data, allow))
        if isinstance(found, Candidate):
            candidates.append(found)
        else:
            refused.append(found)
    return candidates, refused


def _person(request: Request) -> str:
    return person_name(request.path_params["person"])


def _allowed(request: Request) -> frozenset[str]:
    allowed = frozenset(filter(None, request.query_params.get("allow", "").split(",")))
    if allowed - SOFT:
        raise ApiError(422, "invalid_allow", f"`allow` takes {', '.join(sorted(SOFT))}, separated by commas.")
    return allowed


def _number(request: Request, name: str, default: int, most: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 10 or int(text) > most:
        raise ApiError(422, "invalid_number", f"`{name}` is a number from 0 to {most}.")
    return int(text)


def _summary(backend: Backend, everybody: Census, name: str) -> dict[str, Any]:
    faces = everybody.people[name]
    first = faces[:_FIRST_FACES]
    shown = next((face.entry.id for face in first if _has_thumbnail(backend, everybody, face)), None)
    return {
        "person": name,
        "faces": len(faces),
        "face_ids": [face.entry.id for face in first],
        "thumbnail": shown,
    }


def _person_body(backend: Backend, everybody: Census, person: str) -> dict[str, Any]:
    return {
        "status": "success",
        "domain": everybody.domain,
        "person": person,
        "unavailable": everybody.unavailable,
        "faces": [
            _face(known.entry) | {"stores": known.stores, "thumbnail": _has_thumbnail(backend, everybody, known)}
            for known in everybody.faces(person)
        ],
    }


def _has_thumbnail(backend: Backend, everybody: Census, known: KnownFace) -> bool:
    return backend.stores.thumbnails.has(everybody.domain, known.entry.id)


def _face(entry: Entry) -> dict[str, Any]:
    x, y, width, height = entry.box
    return {"id": entry.id, "source": entry.source, "box": {"x": x, "y": y, "w": width, "h": height}}


def _remark(remark: Remark) -> dict[str, str]:
    about = {} if remark.person is None else {"person": remark.person}
    return {"code": remark.code, "message": remark.message, **about}


def _refusal(refused: Refused) -> dict[str, str]:
    return {"file": refused.file, **_remark(refused.remark)}


def _enrolled_body(person: str, report: Enrolment, refused: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "status": "success",
        "person": person,
        "enrolled": [
            {
                "file": one.file,
                "face": _face(Entry(one.face.person, one.face.source, one.face.digest, one.face.box)),
                "warnings": [_remark(warning) for warning in one.warnings],
            }
            for one in report.enrolled
        ],
        "refused": refused,
        "pending": ["pgvector"] if report.written.pgvector_error else [],
    }


def _removed_body(person: str, removed: Removed) -> dict[str, Any]:
    return {
        "status": "success",
        "person": person,
        "removed": removed.faces,
        "pending": ["pgvector"] if removed.pgvector_error else [],
    }
