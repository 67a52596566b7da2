"""What a server's answers are read as."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from matchers.validation import Image, ValidationError
from matchers.validation_remote import _excused, _missing, _read, run_there

IMAGE = Image("amy/1.jpg", Path("amy/1.jpg"), "amy")


def _match(person: str, distance: float, source: str) -> dict[str, Any]:
    return {"person": person, "distance": distance, "source": source}


def _answer(mode: str, **timing: float) -> dict[str, Any]:
    face = {
        "box": {"x": 1, "y": 2, "w": 3, "h": 4},
        "pkl_results": [_match("amy", 0.0, "old/name.jpg"), _match("amy", 0.3, "amy/2.jpg")],
        "pgvector_results": [_match("amy", 0.0, "old/name.jpg"), _match("bob", 0.2, "amy/1.jpg")],
        "comparison": {"top1_match": True, "top5_overlap": 0.5, "max_distance_delta": 0.0},
    }
    return {"mode": mode, "timing_ms": timing, "faces": [face]}


def test_the_picture_itself_is_known_by_its_name_or_by_no_distance() -> None:
    answer = _read(IMAGE, _answer("dual", search_pkl=1.0, search_pgvector=2.0), 30.0)
    assert answer.compared
    assert not answer.failed
    assert answer.times == {"request": 30.0, "PKL": 1.0, "pgvector": 2.0}
    assert answer.faces[0].own == {"old/name.jpg", "amy/1.jpg"}
    assert answer.faces[0].box == (1, 2, 3, 4)


def test_a_failure_of_pgvector_is_one_and_one_store_alone_is_no_comparison() -> None:
    failed = _read(IMAGE, _answer("pkl_only (pgvector failed)", search_pkl=1.0), 30.0)
    assert (failed.failed, failed.compared, failed.pkl_ms, failed.faces) == (True, True, 1.0, ())
    alone = _read(IMAGE, _answer("pgvector_only (pkl failed)", search_pgvector=1.0), 30.0)
    assert (alone.failed, alone.compared, alone.faces) == (False, False, ())


@pytest.mark.parametrize(("overlap", "excused"), [(1.0, True), (0.5, False)])
def test_a_server_that_calls_lists_alike_which_differ_has_an_index(overlap: float, excused: bool) -> None:
    answer = _answer("dual", search_pkl=1.0, search_pgvector=2.0)
    answer["faces"][0]["comparison"]["top5_overlap"] = overlap
    assert _excused(_read(IMAGE, answer, 30.0).faces[0]) is excused
    answer["faces"][0]["pgvector_results"] = answer["faces"][0]["pkl_results"]
    assert not _excused(_read(IMAGE, answer, 30.0).faces[0])


@pytest.mark.parametrize("body", [{}, {"mode": "dual"}, {"mode": "dual", "timing_ms": {}, "faces": [1]}])
def test_another_kind_of_server_is_named_as_such(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"amy/1\.jpg"):
        _read(IMAGE, body, 1.0)


def test_differences_are_counted_in_full_though_listed_in_part() -> None:
    rows = [{"source": "a", "pkl": True, "pgvector": False}, {"source": "b", "pkl": True, "pgvector": True}]
    lacking, total = _missing({"differences": rows, "total": 1500})
    assert (lacking, total) == ({"pkl": frozenset(), "pgvector": frozenset({"a"})}, 1500)
    with pytest.raises(ValidationError):
        _missing({"differences": [1]})


class _SomethingElse(BaseHTTPRequestHandler):
    """Answers everything with an empty JSON object."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_arguments: object) -> None:
        """Nothing to standard error."""


@pytest.fixture
def something_else() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _SomethingElse) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _nothing(_done: int, _total: int) -> None:
    pass


def test_a_server_that_does_not_describe_the_domain_is_named(something_else: str) -> None:
    with pytest.raises(ValidationError, match="threshold"):
        run_there(something_else, "", "office", [], _nothing, leave_one_out=True)


@pytest.mark.parametrize("token", ["key-7531\nkey-7532", "key-7531\u20ac"])
def test_a_token_that_no_header_can_hold_is_not_told(something_else: str, token: str) -> None:
    with pytest.raises(ValidationError) as caught:
        run_there(something_else, token, "office", [], _nothing, leave_one_out=True)
    assert "key-753" not in str(caught.value)


def test_a_password_in_the_address_is_used_and_not_told() -> None:
    class Guarded(_SomethingElse):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization"))
            self.send_error(403)

    seen: list[str | None] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://anna:key-7531@127.0.0.1:{server.server_port}"
        with pytest.raises(ValidationError, match="answers 403") as caught:
            run_there(url, "", "office", [], _nothing, leave_one_out=True)
        server.shutdown()
        thread.join()
    assert "key-7531" not in str(caught.value)
    assert seen == ["Basic YW5uYTprZXktNzUzMQ=="]
