"""Zip archives with one thing wrong."""

from __future__ import annotations

from pathlib import Path

# PKWARE's APPNOTE.TXT, 4.3.7 and 4.3.12: where flags and compression stand in both headers.
_LISTED = b"PK\x01\x02"
_FLAGS, _METHOD, _NAME_LENGTH, _NAME = 6, 8, 26, 30


def damage_member(path: Path, damage: str) -> None:
    """Spoil the first member: its ``packed bytes``, or say another ``compression`` or ``encryption`` of it."""
    data = bytearray(path.read_bytes())
    listed = data.index(_LISTED) + 2
    if damage == "compression":
        data[_METHOD] = data[listed + _METHOD] = 99
    elif damage == "encryption":
        data[_FLAGS] |= 1
        data[listed + _FLAGS] |= 1
    else:
        # A block of a kind that there is not.
        data[_NAME + data[_NAME_LENGTH]] |= 6
    path.write_bytes(data)
