"""From the paths that DeepFace wrote to pictures and people: ``/srv/faces/amy/1.jpg`` is ``amy/1.jpg`` of amy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import PurePosixPath
from typing import Final, TypeAlias

from matchers.errors import GalleryError, InvalidName
from matchers.names import person_name

Folders: TypeAlias = tuple[str, ...]
_AS_IT_IS: Final = "././"
_DRIVE: Final = re.compile(r"[A-Za-z]:(?=[\\/])")


@dataclass(frozen=True, slots=True)
class Roots:
    """The folders above the people of a gallery.

    Attributes:
        folders: each in its parts; of those above a picture the deepest is its root.
        below: how many parts of a path, the file's name one of them, lie below its root at the least.
    """

    folders: frozenset[Folders]
    below: int = 1

    def above(self, path: Folders) -> Folders:
        """The root of the picture at ``path``.

        Raises:
            GalleryError: it does not lie below one.
        """
        for end in range(max(len(path) - self.below, 0), -1, -1):
            if path[:end] in self.folders:
                return path[:end]
        raise GalleryError(f"it does not lie under {' or '.join('/'.join(folder) for folder in sorted(self.folders))}")


def gallery_roots(identities: Sequence[str], folder: str) -> Roots | None:
    """The folders above the people; None when ``identities`` are sources as they stand.

    There is one, the folder among those that all share which is called ``folder`` (where the file lies), else the
    deepest of them; when all pictures lie in that one, it is taken for a person's and the root is above it.

    Or there are several, since the gallery moved or was made of several folders: every picture lies below a folder
    called ``folder``, though not the same; or none lies in a folder right below the deepest one that all share, or they
    share no folder and some path begins at the file system's root. In the last two cases the folder that holds a
    picture is its person.
    """
    if all(map(_is_short, identities)) or all(identity.startswith(_AS_IT_IS) for identity in identities):
        return None
    paths = [path_parts(identity) for identity in identities]
    parents = [path[:-1] for path in paths]
    # What the first and the last in order share, all share.
    pairs = zip(min(parents), max(parents), strict=False)
    root = tuple(part for part, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    if folder in root:
        return Roots(frozenset({_to_last(folder, root)}))
    if all(folder in parent for parent in parents):
        # A person may be called like the folder.
        above = (parent[:-1] if folder in parent[:-1] else parent for parent in parents)
        return Roots(frozenset(_to_last(folder, parent) for parent in above))
    depths = {len(parent) - len(root) for parent in parents}
    if root and depths == {0}:
        return Roots(frozenset({root[:-1]}))
    # Relative paths that share nothing may well begin with people: this program writes such.
    if min(depths) > 1 if root else max(depths) > 1 and any(map(_is_absolute, identities)):
        return Roots(frozenset(parent[:-1] for parent in parents), below=2)
    return Roots(frozenset({root}))


def source_of(identity: str, roots: Roots | None) -> str:
    """The picture's path below its root, ``/`` between parts.

    Relative identities of one or two parts, which is what this program writes, stay as they are even when all faces
    belong to one person; so do identities behind ``./``, which it writes when they would be taken for something else.

    Raises:
        GalleryError: the picture does not lie below a root.
    """
    if roots is None:
        return identity.removeprefix(_AS_IT_IS)
    path = path_parts(identity)
    return "/".join(path[len(roots.above(path)) :])


def longer_source(identity: str, roots: Roots) -> str:
    """The same with the root's folders behind the person, for a picture whose path below another root is the same.

    Raises:
        GalleryError: the picture does not lie below a root, or under no name of a person.
    """
    path = path_parts(identity)
    root = roots.above(path)
    return "/".join((person_of(source_of(identity, roots)), *root, *(path[len(root) + 1 :] or path[-1:])))


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


def folders(path: str) -> Folders:
    """The parts of a path of POSIX or of Windows, without drive and dots; none of what is above all folders."""
    path = _DRIVE.sub("", path).replace("\\", "/")
    return tuple(part for part in path.split("/") if part not in {"", ".", ".."})


def path_parts(identity: str) -> Folders:
    """The folders and the file of a path of POSIX or of Windows, without drive and dots.

    Raises:
        GalleryError: nothing is left.
    """
    parts = folders(identity)
    if not parts:
        raise GalleryError("an identity is not the path of a picture")
    return parts


def written_prefix(sources: Sequence[str], folder: str) -> str:
    """What to put before each source so that a file in ``folder`` gives back the same sources."""
    roots = gallery_roots(sources, folder) if sources else None
    return "" if all(source_of(source, roots) == source for source in sources) else _AS_IT_IS


def _to_last(folder: str, path: Folders) -> Folders:
    return path[: len(path) - path[::-1].index(folder)]


def _is_absolute(identity: str) -> bool:
    return identity.startswith(("/", "\\")) or _DRIVE.match(identity) is not None


def _is_short(identity: str) -> bool:
    parts = identity.split("/")
    return len(parts) <= 2 and "\\" not in identity and not {"", ".", ".."} & {*parts} and not _DRIVE.match(identity)
