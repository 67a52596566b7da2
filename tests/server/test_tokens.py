from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tomllib
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchers.service import Stores
from models.settings import Settings
from runtime.engine import FaceEngine
from server.app import create_app
from server.command import main
from server.errors import ApiError
from server.rates import RateLimiter
from server.tokens import Token, TokenFileError, Tokens, listed_tokens, new_token, parse_tokens


def sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def refused(tokens: Tokens, header: str | None, right: str = "analyze") -> ApiError:
    with pytest.raises(ApiError) as raised:
        tokens.check(header, right)  # type: ignore[arg-type]
    return raised.value


@pytest.mark.parametrize("header", ["first", "second", "Bearer first", "bearer  second", " first "])
def test_any_listed_token_passes_bare_or_after_bearer(header: str) -> None:
    assert Tokens(listed_tokens("first, second,")).check(header, "admin").name in {"token-1", "token-2"}


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "third", "first,second", "Basic first", "FIRST"])
def test_anything_else_is_401(header: str | None) -> None:
    error = refused(Tokens(listed_tokens("first,second")), header)
    assert error.status == 401
    assert error.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("listed", ["", " , ,"])
def test_without_tokens_nobody_is_asked(listed: str) -> None:
    tokens = Tokens(listed_tokens(listed))
    assert not tokens
    assert tokens.check(None).may("admin")
    assert tokens.check("whatever").may_enter("anywhere")


def test_a_token_may_be_listed_by_its_digest() -> None:
    tokens = Tokens(listed_tokens(f"sha256:{sha256('hidden')}"))
    assert tokens.check("hidden").name == "token-1"
    assert refused(tokens, sha256("hidden")).status == 401


def test_tokens_do_not_show_in_the_object() -> None:
    assert "secret-token" not in repr(vars(Tokens(listed_tokens("secret-token"))))


def test_rights_and_domains_of_a_token_file_hold() -> None:
    text = f"""
        [[token]]
        name = "app"
        sha256 = "{sha256("a")}"
        domains = ["slovenia"]
        [[token]]
        name = "office"
        sha256 = "{sha256("o")}"
        rights = ["analyze", "enrol"]
        [[token]]
        name = "root"
        sha256 = "{sha256("r")}"
        rights = ["admin"]
    """
    tokens = Tokens(parse_tokens(text, "file"))
    app = tokens.check("a")
    app.enter("slovenia")
    with pytest.raises(ApiError, match="serbia"):
        app.enter("serbia")
    assert (refused(tokens, "a", "enrol").status, refused(tokens, "a", "enrol").code) == (403, "forbidden")
    assert refused(tokens, "o", "admin").status == 403
    assert tokens.check("o", "enrol").name == "office"
    for right in ("analyze", "enrol", "admin"):
        assert tokens.check("r", right).name == "root"


GOOD = f'[[token]]\nname = "a"\nsha256 = "{"0" * 64}"\n'


@pytest.mark.parametrize(
    "text",
    [
        "not toml",
        "[token]\nname = 'a'",
        "other = 1\n" + GOOD,
        "[[token]]\nname = 'a'\nsha256 = 'short'",
        GOOD.replace('"a"', '"a b"'),
        "[[token]]\nsha256 = '" + "0" * 64 + "'",
        GOOD + "rights = ['everything']",
        GOOD + "rights = []",
        GOOD + "rights = 'admin'",
        GOOD + "domains = ['a/b']",
        GOOD + "rate = -1",
        GOOD + "rate = true",
        GOOD + "secret = 'x'",
        GOOD + GOOD,
    ],
)
def test_a_wrong_token_file_stops_with_its_place(text: str) -> None:
    with pytest.raises(TokenFileError, match=r"tokens\.toml"):
        parse_tokens(text, "tokens.toml")


@given(
    name=st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True),
    rights=st.sets(st.sampled_from(["analyze", "enrol", "admin"]), min_size=1),
    domains=st.none() | st.sets(st.sampled_from(["a", "b.c", "d-1"])),
    rate=st.floats(0, 1000),
)
def test_a_made_token_is_read_back(name: str, rights: set[str], domains: set[str] | None, rate: float) -> None:
    secret, entry = new_token(name, rights, domains, rate)
    assert secret not in entry
    (token,) = parse_tokens(entry, "entry")
    assert (token.name, token.rights, token.domains) == (name, rights, domains)
    assert token.rate == rate
    assert Tokens([token]).check(secret, next(iter(rights))) == token


def test_a_token_that_asks_too_often_waits() -> None:
    tokens = Tokens([Token("app", hashlib.sha256(b"a").digest(), frozenset({"analyze"}), rate=2.0)])
    for _ in range(4):
        tokens.check("a")
    error = refused(tokens, "a")
    assert (error.status, error.code, error.headers["Retry-After"]) == (429, "rate_limited", "1")


@given(rate=st.floats(0.1, 50), steps=st.lists(st.floats(0, 3), max_size=60))
def test_no_window_lets_more_pass_than_the_rate_and_one_burst(rate: float, steps: list[float]) -> None:
    now = 0.0
    limiter = RateLimiter(lambda: now)
    passed = 0
    for step in steps:
        now += step
        passed += limiter.take("x", rate) == 0
    assert passed <= max(1.0, 2 * rate) + now * rate + 1e-6
    if (wait := limiter.take("x", rate)) > 0:
        now += wait + 1e-6
        assert limiter.take("x", rate) == 0


def test_the_service_keeps_a_token_to_its_domains(
    engine: FaceEngine, stores: Stores, pkl_settings: Settings, serve: Callable[..., object], tmp_path: Path
) -> None:
    file = tmp_path / "tokens.toml"
    secrets = {}
    for name, arguments in {"app": ["--domains", "demo"], "other": ["--domains", "elsewhere"]}.items():
        with redirect_stdout(io.StringIO()) as output:
            assert main(["token", "--name", name, "--file", str(file), *arguments]) == 0
        secrets[name] = output.getvalue().strip()
    assert len(tomllib.loads(file.read_text())["token"]) == 2
    assert not any(secret in file.read_text() for secret in secrets.values())
    settings = pkl_settings.model_copy(update={"api_tokens_file": file})
    with serve(create_app(settings, engine, stores)) as client:  # type: ignore[attr-defined]

        def status(secret: str, method: str, path: str) -> httpx.Response:
            return client.request(method, path, headers={"Authorization": secret}, files={"image": b"x"})

        answer = status(secrets["other"], "POST", "/analyze?domain=demo")
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden_domain")
        assert status(secrets["app"], "POST", "/analyze?domain=demo").status_code == 415
        assert client.get("/domains", headers={"Authorization": secrets["other"]}).json()["domains"] == []
        assert len(client.get("/domains", headers={"Authorization": secrets["app"]}).json()["domains"]) == 1


def test_a_second_token_of_one_name_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["token", "--name", "app", "--file", str(tmp_path / "t.toml")]
    assert subprocess.run([sys.executable, "-m", "server", *words], capture_output=True, check=False).returncode == 0
    before = (tmp_path / "t.toml").read_bytes()
    assert main(words) == 2
    assert "two tokens of one name" in capsys.readouterr().err
    assert (tmp_path / "t.toml").read_bytes() == before
