"""How a domain is searched: what is set, and changing it at run time, past the gates."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from matchers.audit import AuditLog, ModeChange, now
from matchers.errors import MatcherError
from matchers.gates import GateResult
from matchers.preferences import Preferences, PreferenceStore
from models.settings import Mode


class GatesClosed(MatcherError):
    """A domain may not leave PKL yet; ``gates`` says on which figures."""

    def __init__(self, domain: str, gates: Sequence[GateResult]) -> None:
        closed = "; ".join(str(gate) for gate in gates if not gate.holds)
        super().__init__(f"the gates of domain {domain!r} do not hold: {closed}")
        self.gates = tuple(gates)


@dataclass(frozen=True, slots=True)
class ModeRequest:
    """What somebody asks for.

    Attributes:
        domain, mode: what is to be searched how.
        sample: share of requests that ``dual`` searches in both stores, 0 to 1; the others are answered from PKL.
        who: how the audit log calls them.
        force: go to ``pgvector_only`` whether the gates hold or not.
    """

    domain: str
    mode: Mode
    who: str
    sample: float = 1.0
    force: bool = False


def drawn(mode: Mode, sample: float) -> Mode:
    """The mode of one request: ``dual`` for a share ``sample`` of them, the others are answered from PKL."""
    # Not for secrets: any spread will do.
    return "pkl_only" if mode == "dual" and sample < 1 and random.random() >= sample else mode  # noqa: S311


def change_mode(
    preferences: PreferenceStore,
    audit: AuditLog,
    asked: ModeRequest,
    default: Mode,
    gates: Callable[[], Sequence[GateResult]],
) -> ModeChange:
    """Set the mode of a domain; every worker takes it up within a second. Nothing changes without an audit entry.

    Args:
        default: mode of a domain for which none was set.
        gates: looks at the gates; called on the way to ``pgvector_only`` only.

    Raises:
        GatesClosed: a gate does not hold and ``asked.force`` is not set; nothing was changed.
        GalleryError: what is set for the domain cannot be read; nothing was changed.
        StoreUnavailable: a file cannot be written; nothing was changed.
    """
    found = tuple(gates()) if asked.mode == "pgvector_only" else None
    closed = found is not None and not all(gate.holds for gate in found)
    if found is not None and closed and not asked.force:
        raise GatesClosed(asked.domain, found)
    noted: list[ModeChange] = []

    def change(before: Preferences) -> Preferences:
        entry = ModeChange(now(), asked.who, before.mode or default, asked.mode, asked.sample, closed, found)
        audit.append(asked.domain, entry)
        noted.append(entry)
        return replace(before, mode=asked.mode, sample=asked.sample)

    preferences.change(asked.domain, change)
    return noted[0]


def dual_since(audit: AuditLog, domain: str) -> str | None:
    """When ``domain`` was last set to ``dual``, ISO 8601; None when it never was. The gates look at what came after.

    Raises:
        StoreUnavailable: the audit log cannot be read.
    """
    return next((change.at for change in audit.read(domain) if change.after == "dual"), None)
