"""Who may do what: tokens with a name, rights and domains, of which only the sha256 is kept."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from matchers.errors import InvalidName
from matchers.names import domain_name
from models.settings import Settings
from server.errors import ApiError
from server.rates import RateLimiter
from server.sessions import SessionKey, session_key

Right = Literal["analyze", "enrol", "admin"]
RIGHTS: Final[tuple[Right, ...]] = get_args(Right)

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_PREFIX: Final = "sha256:"
SESSION_SCHEME: Final = "Session"
"""``Authorization: Session COOKIE`` is what ``server.signin`` makes of a session cookie."""
_FIELDS: Final = frozenset({"name", "sha256", "rights", "domains", "rate"})


class TokenFileError(Exception):
    """The token file cannot be used; the message says where and what to write."""


@dataclass(frozen=True, slots=True)
class Token:
    """One client.

    Attributes:
        name: how logs and the audit call it.
        digest: sha256 of the secret.
        rights: what it may do; ``admin`` includes the others.
        domains: where; None: everywhere.
        rate: requests a second; 0: no limit.
    """

    name: str
    digest: bytes
    rights: frozenset[Right] = frozenset({"admin"})
    domains: frozenset[str] | None = None
    rate: float = 0.0

    def may(self, right: Right) -> bool:
        """Whether it has ``right``."""
        return right in self.rights or "admin" in self.rights

    def may_enter(self, domain: str) -> bool:
        """Whether it may work on ``domain``."""
        return self.domains is None or domain in self.domains

    def enter(self, domain: str) -> None:
        """Raises ApiError 403 when it may not work on ``domain``."""
        if not self.may_enter(domain):
            raise ApiError(403, "forbidden_domain", f"The token {self.name!r} may not use the domain {domain!r}.")


NOBODY: Final = Token("anonymous", b"")
"""The caller where no token is asked for: everything is allowed, on loopback."""


class Tokens:
    """All tokens of a server."""

    def __init__(self, tokens: Collection[Token] = (), rate: float = 0.0, sessions: SessionKey | None = None) -> None:
        """
        Args:
            rate: requests a second for tokens that name none; 0: no limit.
            sessions: checks the cookies of browsers; None: there are none.
        """
        self._tokens = tuple(tokens)
        self._sessions = sessions
        self._limiter = RateLimiter()
        self._rate = rate

    def __bool__(self) -> bool:
        return bool(self._tokens)

    def check(self, authorization: str | None, right: Right | None = "analyze") -> Token:
        """The caller, from an ``Authorization`` header that holds a token, bare or after ``Bearer``.

        Every token is compared in constant time. Without any token everybody passes. ``right`` None: any token will do.

        Raises:
            ApiError: 401, the header is missing or holds no token of ours; 403, the token lacks ``right``; 429, the
                token asks more often than it may.
        """
        if not self._tokens:
            return NOBODY
        if authorization is None:
            raise _refused("This server asks for a token. Send it in the header `Authorization: TOKEN`.")
        caller = self._caller(authorization)
        if right is not None and not caller.may(right):
            raise ApiError(403, "forbidden", f"The token {caller.name!r} lacks the right `{right}`.")
        wait = self._limiter.take(caller.name, caller.rate or self._rate)
        if wait > 0:
            message = f"The token {caller.name!r} asks more often than it may. Try again in {wait:.1f} s."
            raise ApiError(429, "rate_limited", message, {"Retry-After": str(int(wait) + 1)})
        return caller

    def sign_in(self, secret: str) -> tuple[Token, str]:
        """The token with this secret, and a session cookie that stands for it.

        Raises:
            ApiError: 401, it is not one of ours; 409, this server asks for no tokens.
        """
        if self._sessions is None:
            raise ApiError(409, "no_tokens", "This server asks for no token; there is nothing to sign in to.")
        caller = self._by_secret(secret)
        if caller is None:
            raise _refused("This is not one of the server's tokens.")
        return caller, self._sessions.issue(caller.name, caller.digest)

    def _caller(self, authorization: str) -> Token:
        scheme, _, cookie = authorization.partition(" ")
        if scheme == SESSION_SCHEME and self._sessions is not None:
            caller = self._by_session(cookie, self._sessions)
            if caller is None:
                raise _refused("The session is over. Sign in again.")
            return caller
        caller = self._by_secret(_bare(authorization))
        if caller is None:
            raise _refused("The token in the header `Authorization` is not one of this server's.")
        return caller

    def _by_secret(self, secret: str) -> Token | None:
        given = _digest(secret)
        found = None
        for token in self._tokens:
            if hmac.compare_digest(given, token.digest):
                found = token
        return found

    def _by_session(self, cookie: str, sessions: SessionKey) -> Token | None:
        name = sessions.name(cookie)
        named = (token for token in self._tokens if token.name == name)
        return next((token for token in named if sessions.holds(cookie, token.digest)), None)


def open_tokens(settings: Settings) -> Tokens:
    """The tokens of ``API_TOKENS`` and of ``API_TOKENS_FILE`` together.

    Raises:
        TokenFileError: an entry is wrong, a file cannot be read, or the key of sessions cannot be made.
    """
    tokens = _all_tokens(settings)
    if not tokens:
        return Tokens()
    try:
        return Tokens(tokens, settings.rate_limit, session_key(settings.data_dir))
    except OSError as error:
        raise TokenFileError(f"The key of browsers' sessions cannot be used: {error}") from error


def tokens_asked_for(settings: Settings) -> bool:
    """Whether the settings name any token; nothing is written.

    Raises:
        TokenFileError: an entry is wrong, or the file cannot be read.
    """
    return bool(_all_tokens(settings))


def _all_tokens(settings: Settings) -> list[Token]:
    tokens = listed_tokens(settings.api_tokens.get_secret_value())
    if settings.api_tokens_file is not None:
        tokens += read_tokens(settings.api_tokens_file)
    return tokens


def new_token(name: str, rights: Collection[str], domains: Collection[str] | None, rate: float) -> tuple[str, str]:
    """A fresh secret of 256 random bits, and the entry of a token file that admits it."""
    secret = secrets.token_urlsafe(32)
    lines = ["[[token]]", f"name = {json.dumps(name)}", f'sha256 = "{_digest(secret).hex()}"']
    lines.append(f"rights = {json.dumps(sorted(rights))}")
    if domains is not None:
        lines.append(f"domains = {json.dumps(sorted(domains))}")
    if rate:
        lines.append(f"rate = {rate}")
    return secret, "\n".join(lines) + "\n"


def listed_tokens(listed: str) -> list[Token]:
    """The tokens of ``API_TOKENS``: comma-separated secrets or ``sha256:HEX``, each with all rights.

    Raises:
        TokenFileError: a ``sha256:`` entry is not 64 hexadecimal digits.
    """
    entries = [entry.strip() for entry in listed.split(",") if entry.strip()]
    tokens = []
    for number, entry in enumerate(entries, start=1):
        if entry.startswith(_PREFIX):
            digest = _hex_digest(entry.removeprefix(_PREFIX), f"entry {number} of API_TOKENS")
        else:
            digest = _digest(entry)
        tokens.append(Token(f"token-{number}", digest))
    return tokens


def read_tokens(path: Path) -> list[Token]:
    """The tokens of a TOML file: ``[[token]]`` with ``name``, ``sha256``, perhaps ``rights``, ``domains``, ``rate``.

    Raises:
        TokenFileError: the file cannot be read, or an entry is wrong.
    """
    try:
        return parse_tokens(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise TokenFileError(f"the token file {path} cannot be read: {error}") from error


def parse_tokens(text: str, where: str) -> list[Token]:
    """The tokens of a token file's text; ``where`` is what errors call it.

    Raises:
        TokenFileError: the text is not TOML, or an entry is wrong.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TokenFileError(f"{where} is not TOML: {error}") from error
    entries = content.get("token", [])
    if not isinstance(entries, list) or set(content) - {"token"}:
        raise TokenFileError(f"{where} must hold `[[token]]` entries only")
    tokens = [_token(entry, f"{where}, token {number}") for number, entry in enumerate(entries, start=1)]
    names = [token.name for token in tokens]
    if len(set(names)) < len(names):
        raise TokenFileError(f"{where} has two tokens of one name")
    return tokens


def _token(entry: Any, where: str) -> Token:
    if not isinstance(entry, dict) or not isinstance(name := entry.get("name"), str) or not _NAME.fullmatch(name):
        raise TokenFileError(f"{where}: a token needs a name of 1 to 64 ASCII letters, digits, `_`, `-` or `.`")
    if unknown := set(entry) - _FIELDS:
        raise TokenFileError(f"{where}: unknown field {sorted(unknown)[0]!r}; known are {', '.join(sorted(_FIELDS))}")
    rights = _texts(entry.get("rights", ["analyze"]), "rights", where)
    if not rights or set(rights) - set(RIGHTS):
        raise TokenFileError(f"{where}: rights are one or more of {', '.join(RIGHTS)}")
    rate = entry.get("rate", 0.0)
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1e6:
        raise TokenFileError(f"{where}: rate is a number of requests a second")
    return Token(
        name=name,
        digest=_hex_digest(entry.get("sha256"), where),
        rights=frozenset(right for right in RIGHTS if right in rights),
        domains=_domains(entry, where),
        rate=float(rate),
    )


def _domains(entry: dict[str, Any], where: str) -> frozenset[str] | None:
    if "domains" not in entry:
        return None
    try:
        return frozenset(domain_name(name) for name in _texts(entry["domains"], "domains", where))
    except InvalidName as error:
        raise TokenFileError(f"{where}: {error}") from error


def _texts(value: Any, field: str, where: str) -> Sequence[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise TokenFileError(f"{where}: {field} is a list of texts")
    return value


def _hex_digest(text: Any, where: str) -> bytes:
    if not isinstance(text, str) or not _DIGEST.fullmatch(text.lower()):
        raise TokenFileError(f"{where}: sha256 is 64 hexadecimal digits; `python -m server token` makes them")
    return bytes.fromhex(text)


def _bare(authorization: str) -> str:
    scheme, _, rest = authorization.strip().partition(" ")
    return rest.strip() if rest and scheme.casefold() == "bearer" else authorization.strip()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _refused(message: str) -> ApiError:
    return ApiError(401, "unauthorized", message, {"WWW-Authenticate": "Bearer"})
