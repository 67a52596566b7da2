"""``mode``: how a domain is searched, and changing that while servers run."""

from __future__ import annotations

import argparse
import getpass
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import get_args

from rich.console import Console
from rich.table import Table

from matchers.audit import AuditLog, ModeChange, open_audit
from matchers.commands.base import (
    OK,
    PARTIAL,
    Commands,
    InputError,
    add_command,
    judge_of,
    opened_stores,
    print_json,
    require_domain,
)
from matchers.gates import GateResult
from matchers.modes import GatesClosed, ModeRequest, change_mode
from matchers.names import domain_name
from matchers.preferences import PreferenceStore, open_preferences
from matchers.validation_page import gate_rows
from models.settings import Mode, Settings

_EXIT_STATUS = "Exit status: 0 done, 1 the gates do not hold (nothing was changed) or a store failed, 2 wrong input."


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(
        commands,
        "mode",
        _mode,
        summary="show or change how a domain is searched, without a restart",
        description="pkl_only, dual (both stores, compared and recorded) or pgvector_only. Servers of the same "
        "DATA_DIR take it\nup within two seconds. pgvector_only is refused while a gate does not hold: too few "
        "comparisons since the\ndomain was set to dual, too little agreement, too many failures, stores that differ. "
        "The limits are the\nsettings GATE_*. Every change is kept with its figures (--history).",
        examples="  python -m matchers mode --domain office\n"
        "  python -m matchers mode --domain office dual --sample 20%\n"
        "  python -m matchers mode --domain office pgvector_only\n"
        "  python -m matchers mode --domain office pkl_only        # the way back, at once\n"
        "  python -m matchers mode --domain office --history",
        exit_status=_EXIT_STATUS,
    )
    parser.add_argument("--domain", required=True, metavar="D", help="the domain")
    parser.add_argument("mode", nargs="?", choices=get_args(Mode), metavar="MODE", help=", ".join(get_args(Mode)))
    parser.add_argument(
        "--sample", type=_share, metavar="SHARE", help="with dual: share of the requests to compare, as 20%% or 0.2"
    )
    parser.add_argument("--force", action="store_true", help="go to pgvector_only although a gate does not hold")
    parser.add_argument("--history", action="store_true", help="who changed the mode, when, and on which figures")


def _share(text: str) -> float:
    number = text.removesuffix("%")
    try:
        share = float(number) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share; give 20% or 0.2")
    return share


def _mode(args: argparse.Namespace, settings: Settings) -> int:
    domain = domain_name(args.domain)
    preferences, audit = open_preferences(settings), open_audit(settings)
    if args.history:
        if args.mode is not None:
            raise InputError("--history shows; it takes no MODE")
        return _show_history(args, domain, audit.read(domain))
    if args.sample is not None and args.mode != "dual":
        raise InputError("--sample is for dual: --domain D dual --sample 20%")
    if args.force and args.mode != "pgvector_only":
        raise InputError("--force is for pgvector_only")
    with opened_stores(settings) as stores:
        require_domain(stores, domain)
        if args.mode is None:
            return _show(args, domain, settings, preferences, audit)
        if args.mode != "pkl_only" and not settings.vector_db_enabled:
            raise InputError("there is one store only: VECTOR_DB_ENABLED is false")
        sample = 1.0 if args.sample is None else args.sample
        asked = ModeRequest(domain, args.mode, _user(), sample, args.force)
        judge = judge_of(stores, settings)
        try:
            change = change_mode(preferences, audit, asked, settings.default_mode, partial(judge.look, domain))
        except GatesClosed as error:
            return _refuse(args, domain, error.gates)
    if args.json:
        print_json({"domain": domain, "changed": True, **asdict(change)})
        return OK
    if change.gates is not None:
        _print_gates(change.gates)
    sampled = f", {change.sample:.0%} of the requests" if change.after == "dual" and change.sample < 1 else ""
    forced = ", although the gates do not hold" if change.forced else ""
    print(f"{domain}: {change.before} -> {change.after}{sampled}{forced}. Running servers take it up within 2 seconds.")
    return OK


def _user() -> str:
    try:
        return f"command line ({getpass.getuser()})"
    except (KeyError, OSError):
        return "command line"


def _show(
    args: argparse.Namespace, domain: str, settings: Settings, preferences: PreferenceStore, audit: AuditLog
) -> int:
    kept = preferences.get(domain)
    last = next(iter(audit.read(domain)), None)
    mode = (kept.mode or settings.default_mode) if settings.vector_db_enabled else "pkl_only"
    if args.json:
        shown = {"domain": domain, "mode": mode, "sample": kept.sample, "default": kept.mode is None}
        print_json({**shown, "last_change": None if last is None else asdict(last)})
        return OK
    sampled = f", {kept.sample:.0%} of the requests" if mode == "dual" and kept.sample < 1 else ""
    told = "the default of the settings" if kept.mode is None else "set for this domain"
    print(f"{domain}: {mode}{sampled} ({told})")
    if last is not None:
        print(f"last change: {_line(last)}")
    return OK


def _show_history(args: argparse.Namespace, domain: str, changes: Sequence[ModeChange]) -> int:
    if args.json:
        print_json({"domain": domain, "changes": [asdict(change) for change in changes]})
        return OK
    for change in changes:
        print(_line(change))
        for gate in change.gates or ():
            print(f"    {'holds' if gate.holds else 'DOES NOT HOLD'}: {gate}")
    if not changes:
        print(f"{domain}: the mode was never changed")
    return OK


def _line(change: ModeChange) -> str:
    sampled = f" ({change.sample:.0%} of the requests)" if change.after == "dual" and change.sample < 1 else ""
    forced = ", FORCED" if change.forced else ""
    return f"{change.at[:19]}Z  {change.before} -> {change.after}{sampled}{forced}  by {change.who}"


def _refuse(args: argparse.Namespace, domain: str, gates: Sequence[GateResult]) -> int:
    if args.json:
        print_json({"domain": domain, "changed": False, "gates": [asdict(gate) for gate in gates]})
        return PARTIAL
    _print_gates(gates)
    print(
        f"{domain}: the gates do not hold, nothing was changed. `python -m matchers report --domain {domain}` tells "
        "more; --force overrides."
    )
    return PARTIAL


def _print_gates(gates: Sequence[GateResult]) -> None:
    table = Table("gate", "figure", "limit", "")
    for row in gate_rows(gates):
        table.add_row(*row)
    Console().print(table)
