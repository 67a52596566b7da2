"""Pictures sent to a running server, whose domain must be in ``dual``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matchers.base import Match
from matchers.compare import Comparison
from matchers.dual import PGVECTOR_FAILED
from matchers.reasons import suspects
from matchers.validation import Context, FaceAnswer, Image, PictureAnswer, ValidationError

if TYPE_CHECKING:
    import httpx

SAME_PICTURE = 1e-4
"""A face this near is taken for the same picture; two pictures of one person are a hundred times farther apart."""

STORES = ("pkl", "pgvector")

_TIMEOUT = 60.0
_TRIES = 5
_WAIT = 2.0

Progress = Callable[[int, int], None]


def run_there(
    url: str, token: str, domain: str, images: Sequence[Image], progress: Progress, *, leave_one_out: bool
) -> tuple[list[PictureAnswer], Context]:
    """Send every picture to ``POST /analyze``.

    Args:
        url: address of the server, such as ``https://faces.example``; a login in it is used and not told.
        token: goes into the header ``Authorization``; "" for none.

    Raises:
        ValidationError: the server cannot be reached, refuses, is another kind of server, or searches the domain in one
            store only; or the token can be none.
    """
    import httpx  # noqa: PLC0415

    if not (token.isascii() and token.isprintable()):
        # The package's own message would quote it.
        raise ValidationError("the token holds a line end or another character that no header can hold")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url, login = _without_login(url)
    try:
        with httpx.Client(base_url=url, headers=headers, auth=login, timeout=_TIMEOUT) as client:
            described = _get(client, f"/domains/{domain}")
            if described is None:
                raise ValidationError(f"{url} knows no domain {domain!r}, or is too old to describe it.")
            threshold = _threshold(described)
            differences = _get(client, f"/domains/{domain}/differences", optional=True)
            answers = []
            for done, image in enumerate(images, start=1):
                answers.append(_ask(client, domain, image))
                progress(done, len(images))
    except httpx.HTTPError as error:
        raise ValidationError(f"{url} cannot be asked: {error or type(error).__name__}") from error
    if not any(answer.compared for answer in answers) and any(not answer.problem for answer in answers):
        raise ValidationError(
            f"{url} searches the domain {domain!r} in one store only (mode {described.get('mode')}). "
            "Set its mode to dual first."
        )
    missing, total = (None, None) if differences is None else _missing(differences)
    context = Context(
        domain=domain,
        where=url,
        models="",
        threshold=threshold,
        differences=total,
        in_pkl=None if missing is None else _Without(missing["pkl"]),
        in_pgvector=None if missing is None else _Without(missing["pgvector"]),
        indexed=any(_excused(face) for answer in answers for face in answer.faces),
        leave_one_out=leave_one_out,
        sizes_note="Not measured: the galleries of a server cannot be copied from outside.",
    )
    return answers, context


def _without_login(url: str) -> tuple[str, tuple[str, str] | None]:
    """The address that reports and errors may tell, and the user name and password that stood in it."""
    import httpx  # noqa: PLC0415

    try:
        address = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValidationError(f"the address of the server cannot be read: {error}") from error
    login = (address.username, address.password) if address.userinfo else None
    return str(address.copy_with(userinfo=b"")), login


@dataclass(frozen=True, slots=True)
class _Without:
    """Every source but those in the set."""

    sources: frozenset[str]

    def __contains__(self, source: object) -> bool:
        return source not in self.sources


def _missing(body: Mapping[str, Any]) -> tuple[dict[str, frozenset[str]], int]:
    """Sources that each store lacks, as far as the server lists them, and how many pictures differ in all."""
    try:
        listed = body["differences"]
        lacking = {store: frozenset(str(row["source"]) for row in listed if not row[store]) for store in STORES}
        return lacking, int(body.get("total", len(listed)))
    except (KeyError, TypeError, ValueError) as error:
        raise ValidationError(f"the server's list of differences cannot be read: {error!r}") from error


def _threshold(body: Mapping[str, Any]) -> float:
    try:
        return float(body["threshold"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValidationError(f"what the server says of the domain cannot be read: {error!r}") from error


def _get(client: httpx.Client, path: str, *, optional: bool = False) -> dict[str, Any] | None:
    """The JSON object at ``path``; None when there is nothing, or, if ``optional``, when it is not for us."""
    answer = client.get(path)
    if answer.status_code == 404 or (optional and answer.status_code != 200):
        return None
    if answer.status_code != 200:
        raise ValidationError(f"{client.base_url} answers {answer.status_code}: {_message(answer)}")
    return _object(client, answer)


def _object(client: httpx.Client, answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ValidationError(f"{client.base_url} is no face service: its answer is no JSON object.")
    return body


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return answer.reason_phrase or "no reason is given"


def _ask(client: httpx.Client, domain: str, image: Image) -> PictureAnswer:
    try:
        data = image.path.read_bytes()
    except OSError as error:
        return PictureAnswer(image, problem=f"The file cannot be read: {error.strerror}.")
    for attempt in range(_TRIES):
        start = time.perf_counter()
        answer = client.post("/analyze", params={"domain": domain}, files={"image": ("picture", data)})
        elapsed = (time.perf_counter() - start) * 1000
        if answer.status_code not in {429, 503} or attempt == _TRIES - 1:
            break
        time.sleep(min(_seconds(answer.headers.get("retry-after")), 30.0))
    if answer.status_code == 200:
        return _read(image, _object(client, answer), elapsed)
    if answer.status_code in {400, 413, 415, 422}:
        return PictureAnswer(image, problem=_message(answer))
    raise ValidationError(f"{client.base_url} answers {answer.status_code} to {image.source}: {_message(answer)}")


def _excused(face: FaceAnswer) -> bool:
    """The server says that lists agree which do not: its index missed something that does not count."""
    return face.comparison.top5_overlap == 1.0 and bool(suspects(face.pkl, face.pgvector))


def _seconds(text: str | None) -> float:
    return float(text) if text is not None and text.isdecimal() else _WAIT


def _read(image: Image, body: Mapping[str, Any], elapsed: float) -> PictureAnswer:
    try:
        mode, timing = body["mode"], body["timing_ms"]
        times = {"request": elapsed}
        for store, name in (("search_pkl", "PKL"), ("search_pgvector", "pgvector")):
            if store in timing and body["faces"]:
                times[name] = float(timing[store])
        if mode == PGVECTOR_FAILED:
            return PictureAnswer(image, failed=True, compared=True, pkl_ms=timing.get("search_pkl"), times=times)
        if mode != "dual":
            return PictureAnswer(image, times=times)
        faces = [_face(image, face) for face in body["faces"]]
        return PictureAnswer(
            image, faces, False, True, float(timing["search_pkl"]), float(timing["search_pgvector"]), times
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValidationError(f"the answer to {image.source} is not one of a face service: {error!r}") from error


def _face(image: Image, face: Mapping[str, Any]) -> FaceAnswer:
    box, comparison = face["box"], face["comparison"]
    pkl, pgvector = (
        [Match(str(row["person"]), float(row["distance"]), str(row["source"])) for row in face[key]]
        for key in ("pkl_results", "pgvector_results")
    )
    near = {match.source for match in (*pkl, *pgvector) if match.distance <= SAME_PICTURE}
    own = near | {match.source for match in (*pkl, *pgvector) if match.source == image.source}
    return FaceAnswer(
        (int(box["x"]), int(box["y"]), int(box["w"]), int(box["h"])),
        pkl,
        pgvector,
        Comparison(
            bool(comparison["top1_match"]),
            float(comparison["top5_overlap"]),
            float(comparison["max_distance_delta"]),
        ),
        frozenset(own),
    )
