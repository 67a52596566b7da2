"""Every endpoint and every refusal, over HTTP."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import httpx
import jsonschema
import numpy as np
import pytest
from PIL import Image
from pydantic import SecretStr

from matchers.dual import Outcome
from matchers.preferences import open_preferences
from matchers.service import Stores
from models.settings import Settings
from runtime.engine import FaceEngine
from server.app import ROUTES, create_app

API: dict[str, Any] = json.loads(files("server").joinpath("openapi.json").read_text("utf-8"))


def checked(answer: httpx.Response, schema: str) -> Any:
    """The answer's JSON, which is as ``/openapi.json`` says."""
    body = answer.json()
    closed = {**API["components"]["schemas"][schema], "unevaluatedProperties": False}
    jsonschema.Draft202012Validator({**closed, "components": API["components"]}).validate(body)
    return body


def refused(answer: httpx.Response, status: int, code: str) -> str:
    body = checked(answer, "Error")
    assert (answer.status_code, body["error"]["code"]) == (status, code), body
    message: str = body["error"]["message"]
    assert message
    return message


def picture(data: bytes, name: str = "picture.jpg") -> dict[str, Any]:
    return {"image": (name, data, "image/jpeg")}


def encoded(fmt: str, width: int = 64, height: int = 48) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(buffer, fmt)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def guarded(pkl_settings: Settings, engine: FaceEngine, stores: Stores, serve: Any) -> Iterator[httpx.Client]:
    settings = pkl_settings.model_copy(update={"api_tokens": SecretStr("s3cret-a, s3cret-b")})
    with serve(create_app(settings, engine, stores)) as opened:
        yield opened


def test_the_guests_are_named(client: httpx.Client, group_picture: Path) -> None:
    answer = client.post("/analyze?domain=demo&language=serbian", files=picture(group_picture.read_bytes()))
    body = checked(answer, "Analysis")
    assert answer.status_code == 200
    assert body["mode"] == "pkl_only"
    assert body["language"] == "serbian"
    assert body["image"] == {"width": 1280, "height": 886}
    assert body["recognized_faces"] == [f"guest-{number}" for number in range(1, 7)]
    assert all(face["pkl_results"] and not face["pgvector_results"] for face in body["faces"])
    assert {"decode", "detect", "align", "embed", "search_pkl", "total"} <= body["timing_ms"].keys()
    assert body["timing_ms"]["total"] >= body["timing_ms"]["detect"]


def test_domain_and_language_have_defaults(client: httpx.Client, group_picture: Path) -> None:
    body = client.post("/analyze", files=picture(group_picture.read_bytes())).json()
    assert (body["domain"], body["language"]) == ("demo", "english")


def test_a_picture_without_a_face_is_a_success(client: httpx.Client) -> None:
    answer = client.post("/analyze", files=picture(encoded("PNG")))
    body = checked(answer, "Analysis")
    assert (answer.status_code, body["faces"], body["recognized_faces"]) == (200, [], [])


def test_an_unknown_domain_is_404(client: httpx.Client, group_picture: Path) -> None:
    refused(client.post("/analyze?domain=nowhere", files=picture(group_picture.read_bytes())), 404, "unknown_domain")
    refused(client.post("/analyze?domain=nowhere", files=picture(encoded("PNG"))), 404, "unknown_domain")


@pytest.mark.parametrize("domain", ["../demo", "a/b", "a\x00b", "..", "x" * 500])
def test_a_domain_name_that_is_none_is_422(client: httpx.Client, domain: str) -> None:
    answer = client.post("/analyze", params={"domain": domain}, files=picture(encoded("PNG")))
    refused(answer, 422, "invalid_name")


@pytest.mark.parametrize("language", ["<script>", "klingon", "x" * 500])
def test_an_unknown_language_is_422_with_the_list(client: httpx.Client, language: str) -> None:
    answer = client.post("/analyze", params={"language": language}, files=picture(encoded("PNG")))
    message = refused(answer, 422, "unknown_language")
    assert "english (en)" in message
    assert "serbian (cyrillic) (sr-Cyrl)" in message


def test_the_description_is_in_the_language_asked_for(client: httpx.Client, group_picture: Path) -> None:
    files = picture(group_picture.read_bytes())
    headers = {"Accept-Language": "fr, sl;q=0.9, en;q=0.1"}
    named = client.post("/analyze?language=sr-Cyrl", files=files, headers=headers)
    assert named.json()["description"].startswith("На слици је шест особа: лево guest-1")
    assert (named.json()["language"], named.headers["content-language"]) == ("sr-Cyrl", "sr-Cyrl")
    preferred = client.post("/analyze", files=files, headers=headers)
    assert preferred.json()["description"].startswith("Na sliki je šest oseb: levo guest-1")
    assert (preferred.json()["language"], preferred.headers["content-language"]) == ("slovenian", "sl")


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 400, "image_empty"),
        (b"GIF89a" + bytes(100), 415, "unsupported_format"),
        (b"%PDF-1.7" + bytes(100), 415, "unsupported_format"),
        (encoded("JPEG")[:60], 422, "image_unreadable"),
        (encoded("PNG", 20_001, 10), 413, "image_too_large"),
    ],
)
def test_bytes_that_are_no_usable_picture(client: httpx.Client, data: bytes, status: int, code: str) -> None:
    refused(client.post("/analyze", files=picture(data)), status, code)


def test_a_request_without_a_picture(client: httpx.Client) -> None:
    message = refused(client.post("/analyze", files={"photo": ("a.png", encoded("PNG"))}), 400, "missing_image")
    assert "`photo`" in message
    refused(client.post("/analyze", files={"x": (None, "1")}), 400, "missing_image")
    refused(client.post("/analyze", files={"image": (None, "no file")}), 400, "missing_image")


def test_two_pictures_are_refused(client: httpx.Client) -> None:
    two = [("image", ("a.png", encoded("PNG"))), ("image", ("b.png", encoded("PNG")))]
    refused(client.post("/analyze", files=two), 400, "too_many_images")


def test_a_body_that_is_not_multipart_is_415(client: httpx.Client) -> None:
    refused(client.post("/analyze", content=encoded("PNG")), 415, "not_multipart")
    refused(client.post("/analyze", json={"image": "x"}), 415, "not_multipart")


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=abc"])
def test_broken_multipart_is_400(client: httpx.Client, kind: str) -> None:
    answer = client.post("/analyze", content=b"nonsense\r\n", headers={"Content-Type": kind})
    refused(answer, 400, "invalid_multipart")


def test_a_body_over_the_limit_is_413_declared_or_not(client: httpx.Client, engine: FaceEngine) -> None:
    size = engine.limits.max_bytes + 2**20
    refused(client.post("/analyze", files=picture(bytes(size))), 413, "image_too_large")

    def chunks() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(size // 2**16):
            yield bytes(2**16)

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    refused(client.post("/analyze", content=chunks(), headers=headers), 413, "image_too_large")


@pytest.mark.parametrize("path", ["/nothing", "/analyze/", "/domains/demo/x"])
def test_an_unknown_address_is_404(client: httpx.Client, path: str) -> None:
    refused(client.get(path), 404, "not_found")


def test_a_wrong_method_is_405(client: httpx.Client) -> None:
    answer = client.get("/analyze")
    refused(answer, 405, "method_not_allowed")
    assert "POST" in answer.headers["allow"]


@pytest.mark.parametrize("authorization", ["s3cret-a", "s3cret-b", "Bearer s3cret-a"])
def test_a_token_opens(guarded: httpx.Client, authorization: str) -> None:
    headers = {"Authorization": authorization}
    assert guarded.post("/analyze", files=picture(encoded("PNG")), headers=headers).status_code == 200
    assert guarded.get("/domains", headers=headers).status_code == 200
    assert guarded.get("/metrics", headers=headers).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"Authorization": "wrong"}, {"Authorization": "Bearer s3cret-a, s3cret-b"}])
def test_no_token_or_a_wrong_one_is_401(guarded: httpx.Client, headers: dict[str, str]) -> None:
    answer = guarded.post("/analyze", files=picture(encoded("PNG")), headers=headers)
    refused(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    refused(guarded.get("/domains", headers=headers), 401, "unauthorized")
    refused(guarded.get("/metrics", headers=headers), 401, "unauthorized")


def test_health_asks_for_no_token(guarded: httpx.Client) -> None:
    assert guarded.get("/health/live").json() == {"status": "live"}
    assert guarded.get("/health/ready").status_code == 200


def test_ready_says_what_runs(client: httpx.Client) -> None:
    body = checked(client.get("/health/ready"), "Ready")
    assert body["models"] == {"detector": "retinaface", "embedder": "sface"}
    assert body["provider"] == "CPUExecutionProvider"
    assert (body["status"], body["mode"], body["pgvector"]["status"]) == ("ready", "pkl_only", "off")


def test_not_ready_before_start_and_after_the_end(
    pkl_settings: Settings, engine: FaceEngine, stores: Stores, serve: Any
) -> None:
    closed = []
    app = create_app(pkl_settings, engine, stores, lambda: closed.append(True))
    assert app.state.ready is False
    with serve(app) as opened:
        app.state.ready = False
        refused(opened.get("/health/ready"), 503, "not_ready")
        assert not closed
    assert closed == [True]


def test_what_cannot_be_closed_keeps_nothing_after_it_open(
    pkl_settings: Settings, engine: FaceEngine, stores: Stores, serve: Any
) -> None:
    closed = []
    app = create_app(pkl_settings, engine, stores, lambda: closed.append(True))
    backend = app.state.backend
    with serve(app):
        # The end of the recorder writes what waits; such a time cannot be written.
        backend.recorder.close()
        unheard = Outcome("dual", [[]], None, None, {}, compared=True)
        backend.recorder.record(unheard, "office", 0.5, object())  # type: ignore[arg-type]
    assert closed == [True]


def test_domains_are_counted(client: httpx.Client) -> None:
    body = checked(client.get("/domains"), "Domains")
    assert body["domains"] == [{"domain": "demo", "mode": "pkl_only", "faces": {"pkl": 6, "pgvector": None}}]


def test_metrics_count_pictures_by_mode_and_outcome(client: httpx.Client, group_picture: Path) -> None:
    client.post("/analyze", files=picture(group_picture.read_bytes()))
    client.post("/analyze", files=picture(b"GIF89a"))
    text = client.get("/metrics").text
    assert 'face_requests_total{mode="pkl_only",outcome="success"}' in text
    assert 'face_requests_total{mode="pkl_only",outcome="unsupported_format"}' in text
    assert 'face_stage_seconds_bucket{le="0.1",stage="embed"}' in text
    assert 'face_pending{pool="inference"} 0.0' in text


def test_the_description_of_the_api_lists_what_there_is(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for path, methods in paths.items():
        for method in methods:
            assert client.request(method, path).status_code not in (404, 405, 500), path
    assert {route.path for route in ROUTES} == paths.keys()


@pytest.mark.parametrize("path", ["/", "/health/live", "/nothing"])
def test_every_answer_carries_an_id_and_security_headers(client: httpx.Client, path: str) -> None:
    headers = client.get(path, headers={"X-Request-ID": "mine-1"}).headers
    assert headers["x-request-id"] == "mine-1"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("default-src")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers
    assert client.get(path, headers={"X-Request-ID": "a b"}).headers["x-request-id"] != "a b"


def test_one_line_per_request_without_the_token(guarded: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        guarded.post("/analyze?domain=demo", files=picture(encoded("PNG")), headers={"Authorization": "s3cret-a"})
        guarded.post("/analyze?domain=demo", files=picture(encoded("PNG")), headers={"Authorization": "s3cret-z"})
    lines = [record.getMessage() for record in caplog.records if record.name == "server.requests"]
    assert [("POST /analyze 200" in line, "POST /analyze 401" in line) for line in lines] == [
        (True, False),
        (False, True),
    ]
    assert "mode=pkl_only" in lines[0]
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/people/Amy%20Lee", "/people/-"),
        ("/people//Amy", "/people/-"),
        ("/%70eople/Amy", "/people/-"),
        ("/people%2FAmy", "/people/-"),
        ("/People/Amy/Lee", "/People/-"),
        ("/people/Amy%2FLee", "/people/-"),
        ("/people/Amy%0ALee", "/people/-"),
        ("/people/Amy/faces/" + 24 * "0" + "/thumbnail", "/people/-/faces/" + 24 * "0" + "/thumbnail"),
        ("/people/Amy/faces/Amy", "/people/-"),
        ("/people", "/people"),
        ("/%0AINFO%20all%20is%20well", "/%0AINFO%20all%20is%20well"),
    ],
)
def test_the_log_names_nobody_however_an_address_is_spelt(
    client: httpx.Client, caplog: pytest.LogCaptureFixture, path: str, told: str
) -> None:
    with caplog.at_level(logging.INFO, "server.requests"):
        client.get(f"/domains/demo{path}")
        deadline = time.monotonic() + 30
        # The line is written behind the answer.
        while not (lines := [one.getMessage() for one in caplog.records if one.name == "server.requests"]):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    (line,) = lines
    assert f" GET /domains/demo{told} " in line


def test_a_domains_own_threshold_decides_who_is_known(
    client: httpx.Client, pkl_settings: Settings, engine: FaceEngine, group_picture: Path
) -> None:
    preferences = open_preferences(pkl_settings)
    other_scale = cv2.imencode(".png", cv2.resize(cv2.imread(str(group_picture)), None, fx=0.8, fy=0.8))[1].tobytes()

    def known() -> int:
        answer = client.post("/analyze", params={"domain": "demo"}, files={"image": ("x", other_scale)})
        return len(answer.json()["recognized_faces"])

    assert known() == 6
    preferences.set_threshold("demo", engine.embedder_card, 1e-6)
    try:
        deadline = time.monotonic() + 20
        while known():
            assert time.monotonic() < deadline, "the threshold was not taken up"
    finally:
        preferences.drop("demo")
        time.sleep(0.6)
    assert known() == 6
