from __future__ import annotations

import pytest

from server.errors import ApiError
from server.tokens import Tokens


@pytest.mark.parametrize("header", ["first", "second", "Bearer first", "bearer  second", " first "])
def test_any_listed_token_passes_bare_or_after_bearer(header: str) -> None:
    Tokens("first, second,").check(header)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "third", "first,second", "Basic first", "FIRST"])
def test_anything_else_is_401(header: str | None) -> None:
    with pytest.raises(ApiError) as raised:
        Tokens("first,second").check(header)
    assert raised.value.status == 401
    assert raised.value.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("listed", ["", " , ,"])
def test_without_tokens_nobody_is_asked(listed: str) -> None:
    tokens = Tokens(listed)
    assert not tokens
    tokens.check(None)
    tokens.check("whatever")


def test_tokens_do_not_show_in_the_object() -> None:
    tokens = Tokens("secret-token")
    assert "secret-token" not in repr(vars(tokens))
