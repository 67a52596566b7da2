"""Names of domains and people."""

from __future__ import annotations

import re
import unicodedata

from matchers.errors import InvalidName

_DOMAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_PERSON_LENGTH = 128


def domain_name(text: str) -> str:
    """``text`` if it can name a domain: 1 to 64 ASCII letters, digits, ``_``, ``-`` or ``.``, first a letter or digit.

    Raises:
        InvalidName: it cannot.
    """
    if not _DOMAIN.fullmatch(text):
        raise InvalidName(
            "A domain's name has 1 to 64 ASCII letters, digits, `_`, `-` or `.`, and begins with a letter or digit."
        )
    return text


def is_domain_name(text: str) -> bool:
    """Whether ``text`` can name a domain."""
    return _DOMAIN.fullmatch(text) is not None


def person_name(text: str) -> str:
    """``text`` in Unicode NFC if it can name a person: 1 to 128 printable characters, no slash, no space at the ends.

    Raises:
        InvalidName: it cannot.
    """
    name = unicodedata.normalize("NFC", text)
    if not 1 <= len(name) <= _PERSON_LENGTH or not name.isprintable() or name != name.strip() or name.startswith("."):
        raise InvalidName(
            f"A person's name has 1 to {_PERSON_LENGTH} printable characters, "
            "begins with none of space and `.`, and does not end with a space."
        )
    if "/" in name or "\\" in name:
        raise InvalidName("A person's name holds no slash.")
    return name
