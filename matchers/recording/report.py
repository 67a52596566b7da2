"""May a domain leave PKL? What was recorded of it, with the gates; as JSON for the API, the page and scripts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from matchers.audit import AuditLog
from matchers.base import Match
from matchers.differences import differences
from matchers.errors import MatcherError, StoreUnavailable
from matchers.gates import GateResult, Gates, check, not_known
from matchers.modes import dual_since
from matchers.recording.figures import Bucket, Disagreement, Recorded, Window, recorded, summary
from matchers.service import Stores
from matchers.summary import Summary

_AGE = re.compile(r"(\d{1,9})\s*([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_BEGINNING = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Judge:
    """What the gates of a domain are judged by.

    Attributes:
        model: embedding space of the stores.
        gates: what is asked for.
        differing: how many pictures of a domain the stores do not hold alike; None when that cannot be told.
    """

    stores: Stores
    audit: AuditLog
    model: str
    gates: Gates
    differing: Callable[[str], int | None]

    def look(self, domain: str) -> list[GateResult]:
        """The gates over what was recorded since the domain was last set to ``dual``; none holds when PostgreSQL is
        away."""
        if self.stores.pgvector is None:
            return not_known(self.gates)
        try:
            found = summary(self.stores.pgvector.database, self.window(domain))
        except StoreUnavailable:
            return not_known(self.gates)
        return self.judge(domain, found)

    def judge(self, domain: str, found: Summary) -> list[GateResult]:
        """The gates on the figures ``found``."""
        return check(self.gates, found.figures(self.differing(domain)))

    def window(self, domain: str, since: datetime | None = None, until: datetime | None = None) -> Window:
        """From ``since``, by default from when the domain was last set to ``dual``, until ``until``, by default now."""
        start = since or _parsed(dual_since(self.audit, domain)) or _BEGINNING
        return Window(domain, self.model, start, until or datetime.now(UTC) + timedelta(seconds=1))


@dataclass(frozen=True, slots=True)
class Report:
    """What was recorded of a domain in a window, and the gates as they are now.

    Attributes:
        gates_since: when the domain was last set to ``dual``, ISO 8601; None: never.
        waiting: comparisons on the disk that PostgreSQL does not have yet, and which do not count here.
    """

    recorded: Recorded
    gates: Sequence[GateResult]
    gates_since: str | None
    waiting: int

    @property
    def holds(self) -> bool:
        """Whether every gate holds."""
        return all(gate.holds for gate in self.gates)


def count_differences(stores: Stores, domain: str) -> int | None:
    """How many pictures of ``domain`` the stores do not hold alike; None when a store cannot tell."""
    try:
        return len(differences(stores, domain))
    except MatcherError:
        return None


def report(judge: Judge, window: Window, limit: int = 50, buckets: int = 60) -> Report:
    """Everything about ``window``.

    Args:
        limit: how many disagreements and failures are listed.
        buckets: at most so many points in the course over time.

    Raises:
        StoreUnavailable: pgvector is switched off or does not answer.
    """
    stores = judge.stores
    found = recorded(stores.needed_pgvector().database, window, limit, buckets)
    usual = judge.window(window.domain)
    same = window.since == usual.since and window.until >= usual.until - timedelta(minutes=1)
    return Report(
        recorded=found,
        gates=judge.judge(window.domain, found.summary) if same else judge.look(window.domain),
        gates_since=dual_since(judge.audit, window.domain),
        waiting=stores.comparisons.spool.waiting(),
    )


def moment(text: str) -> datetime:
    """A moment, from ISO 8601 (UTC when it names no zone) or an age such as ``90s``, ``15m``, ``24h``, ``7d``.

    Raises:
        ValueError: it is neither; the message says so.
    """
    age = _AGE.fullmatch(text.strip())
    try:
        if age is not None:
            return datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: int(age[1])})
        # In the query of an address a plus sign means a space.
        found = datetime.fromisoformat(text.strip().replace(" ", "+") if "T" in text else text.strip())
        # The first and the last day of the calendar have no moment in UTC everywhere.
        return found.astimezone(UTC) if found.tzinfo is not None else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"{text[:40]!r} is no moment: give an age such as 15m, 24h or 7d, or a date such as 2026-01-31T08:00:00Z"
        ) from error


def as_json(found: Report) -> dict[str, Any]:
    """What the API answers and ``report --json`` prints."""
    window = found.recorded.window
    return {
        "domain": window.domain,
        "since": None if window.since == _BEGINNING else _iso(window.since),
        "until": _iso(window.until),
        "summary": asdict(found.recorded.summary),
        "gates": [asdict(gate) for gate in found.gates],
        "holds": found.holds,
        "gates_since": found.gates_since,
        "bucket_seconds": found.recorded.bucket_seconds,
        "series": [_bucket(bucket) for bucket in found.recorded.series],
        "disagreements": [_disagreement(one) for one in found.recorded.disagreements],
        "failures": [
            {"at": _iso(one.at), "request": _number(one.request), "error": one.error} for one in found.recorded.failures
        ],
        "waiting": found.waiting,
    }


def _bucket(bucket: Bucket) -> dict[str, Any]:
    return {**asdict(bucket), "at": _iso(bucket.at)}


def _disagreement(one: Disagreement) -> dict[str, Any]:
    return {
        "at": _iso(one.at),
        "request": _number(one.request),
        "face": one.face,
        "reason": one.reason,
        "threshold": one.threshold,
        "comparison": asdict(one.comparison),
        "pkl": [_match(match) for match in one.pkl],
        "pgvector": [_match(match) for match in one.pgvector],
        "pkl_ms": one.pkl_ms,
        "pgvector_ms": one.pgvector_ms,
    }


def _match(match: Match) -> dict[str, Any]:
    return {"person": match.person or None, "distance": match.distance, "source": match.source or None}


def _number(request: int) -> str:
    """JavaScript cannot hold 63 bits."""
    return f"{request:016x}"


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds")


def _parsed(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
