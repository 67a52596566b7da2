"""From the paths that DeepFace wrote to pictures and people: ``/srv/faces/amy/1.jpg`` is ``amy/1.jpg`` of amy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import PurePosixPath
from typing import Final

from matchers.errors import GalleryError, InvalidName
from matchers.names import person_name

_AS_IT_IS: Final = "././"
_DRIVE: Final = re.compile(r"[A-Za-z]:(?=[\\/])")


def gallery_root(identities: Sequence[str], folder: str) -> tuple[str, ...] | None:
    """The folders above the gallery that all ``identities`` share; None when they are sources as they stand.

    The root is the folder among them that is called ``folder`` (where the file lies), else the deepest that all share;
    when all pictures lie in that one, it is taken for a person's and the root is above it.
    """
    if all(map(_is_short, identities)) or all(identity.startswith(_AS_IT_IS) for identity in identities):
        return None
    paths = [path_parts(identity) for identity in identities]
    parents = [path[:-1] for path in paths]
    # What the first and the last in order share, all share.
    pairs = zip(min(parents), max(parents), strict=False)
    root = tuple(part for part, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    if folder in root:
        return root[: len(root) - root[::-1].index(folder)]
    if root and all(len(path) == len(root) + 1 for path in paths):
        return root[:-1]
    return root


def source_of(identity: str, root: tuple[str, ...] | None) -> str:
    """The picture's path below ``root``, ``/`` between parts.

    Relative identities of one or two parts, which is what this program writes, stay as they are even when all faces
    belong to one person; so do identities behind ``./``, which it writes when they would be taken for something else.

    Raises:
        GalleryError: the picture does not lie below ``root``.
    """
    if root is None:
        return identity.removeprefix(_AS_IT_IS)
    path = path_parts(identity)
    if path[: len(root)] != root or len(path) == len(root):
        raise GalleryError(f"it does not lie under {'/'.join(root)}")
    return "/".join(path[len(root) :])


def person_of(source: str) -> str:
    """Whom a picture shows: the folder under the gallery's root, or the stem of a file that lies there.

    Raises:
        GalleryError: that is no name of a person.
    """
    folder, slash, _ = source.partition("/")
    name = folder if slash else PurePosixPath(source).stem
    try:
        return person_name(name)
    except InvalidName as error:
        raise GalleryError(f"the folder of a picture is no name of a person: {error}") from error


def path_parts(identity: str) -> tuple[str, ...]:
    """The folders and the file of a path of POSIX or of Windows, without drive and dots.

    Raises:
        GalleryError: nothing is left.
    """
    path = _DRIVE.sub("", identity).replace("\\", "/")
    parts = tuple(part for part in path.split("/") if part not in {"", ".", ".."})
    if not parts:
        raise GalleryError("an identity is not the path of a picture")
    return parts


def written_prefix(sources: Sequence[str], folder: str) -> str:
    """What to put before each source so that a file in ``folder`` gives back the same sources."""
    root = gallery_root(sources, folder) if sources else None
    return "" if all(source_of(source, root) == source for source in sources) else _AS_IT_IS


def _is_short(identity: str) -> bool:
    parts = identity.split("/")
    return len(parts) <= 2 and "\\" not in identity and not {"", ".", ".."} & {*parts} and not _DRIVE.match(identity)
