"""Fill, search and compare galleries: ``python -m matchers sync|search|status|demo``."""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from matchers.answer import analyze_answer
from matchers.base import GalleryStore
from matchers.breaker import CircuitBreaker
from matchers.demo import DOMAIN, demo_picture, ensure_demo
from matchers.dual import Searcher
from matchers.errors import InvalidName, MatcherError, StoreUnavailable, UnknownDomain
from matchers.folder import FolderError
from matchers.languages import Languages, UnknownLanguage
from matchers.names import domain_name
from matchers.service import Stores, open_stores
from matchers.sync import SyncReport, sync_folder
from models.card import load_card
from models.errors import ModelError
from models.settings import Mode, Settings
from models.store import ModelStore
from runtime.engine import FaceEngine, open_engine
from runtime.errors import ImageError, RuntimeFault

OK, PARTIAL, BAD_INPUT = 0, 1, 2

_EXIT_STATUS = "Exit status: 0 done, 1 a store could not be reached or brought up to date, 2 wrong input."


class InputError(MatcherError):
    """What was given on the command line cannot be used."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status says how it went (see ``--help``)."""
    args = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    try:
        status: int = args.run(args, Settings())
    except (InputError, InvalidName, FolderError, UnknownDomain, UnknownLanguage, ImageError, ModelError) as error:
        return _fail(str(error), BAD_INPUT)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        return _fail(f"a setting is wrong: {wrong}", BAD_INPUT)
    except (MatcherError, RuntimeFault) as error:
        return _fail(str(error), PARTIAL)
    except OSError as error:
        return _fail(f"{error.filename or 'input or output'}: {error.strerror}", PARTIAL)
    except KeyboardInterrupt:
        return _fail("stopped; run the same command again to go on", 130)
    return status


def _fail(message: str, status: int) -> int:
    print(f"matchers: {message}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m matchers",
        description="Fill, search and compare the galleries, in PKL files and in PostgreSQL/pgvector.",
        epilog=(
            "A domain is a gallery of its own, for example a country or a customer. Settings come from the\n"
            "environment and from .env: DATA_DIR, MODELS_DIR, DATABASE_URL, DETECTOR, EMBEDDER, ...\n\n"
            "  python -m matchers sync --domain office --images photos   # photos/amy/1.jpg, photos/bob/1.jpg, ...\n"
            "  python -m matchers search --domain office group.jpg\n"
            "  python -m matchers status\n\n" + _EXIT_STATUS
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    sync = _command(
        commands,
        "sync",
        "bring a folder of pictures into both stores",
        "Bring DIR/<person>/<picture> into both stores. Only pictures with new content are read by the models;\n"
        "pictures that are gone from DIR leave the stores. A picture with no face or with several faces is left out\n"
        "and listed.",
        "  python -m matchers sync --domain office --images photos",
    )
    sync.add_argument("--domain", required=True, metavar="D", help="the domain to fill; made when it is new")
    sync.add_argument("--images", required=True, type=Path, metavar="DIR", help="folder with one subfolder per person")
    sync.add_argument("--allow-empty", action="store_true", help="let a DIR without pictures empty the domain")
    sync.set_defaults(run=_sync)

    search = _command(
        commands,
        "search",
        "name the people in a picture",
        "Find the faces of a picture and the people whom they resemble most. --json prints what POST /analyze answers.",
        "  python -m matchers search --domain office group.jpg\n"
        "  python -m matchers search --domain office --mode pkl_only --json group.jpg",
    )
    search.add_argument("--domain", required=True, metavar="D", help="the domain to search")
    search.add_argument("--mode", choices=get_args(Mode), help="where to search (default: as the settings say)")
    search.add_argument(
        "--language",
        default="english",
        help="language of the description, such as german or sr-Cyrl (default: english)",
    )
    search.add_argument("picture", type=Path, metavar="PICTURE", help="JPEG, PNG, WebP, BMP or TIFF")
    search.set_defaults(run=_search)

    status = _command(
        commands,
        "status",
        "count the faces per store and show differences",
        "How many faces, pictures and people each store holds, and which pictures only one of them has.",
        "  python -m matchers status\n  python -m matchers status --domain office --json",
    )
    status.add_argument("--domain", metavar="D", help="one domain only (default: all)")
    status.set_defaults(run=_status)

    demo = _command(
        commands,
        "demo",
        f"make the domain {DOMAIN!r} from a picture that comes along",
        "Enrol the six people of a picture that the package insightface ships as guest-1 to guest-6, from left to\n"
        "right. Nothing happens when the domain is there already.",
        "  python -m matchers demo",
    )
    demo.add_argument("--domain", default=DOMAIN, metavar="D", help=f"name of the domain (default: {DOMAIN})")
    demo.set_defaults(run=_demo)
    return parser


def _command(commands: Any, name: str, summary: str, description: str, examples: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"Examples:\n{examples}\n\n{_EXIT_STATUS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, for scripts")
    return parser


@contextmanager
def _opened(settings: Settings) -> Iterator[tuple[FaceEngine, Stores]]:
    engine = open_engine(settings)
    with open_stores(settings, engine.embedder_card, engine.detector_card.name) as stores:
        yield engine, stores


def _sync(args: argparse.Namespace, settings: Settings) -> int:
    domain_name(args.domain)
    if not args.images.is_dir():
        raise FolderError(f"{args.images} is not a folder. Name the folder that holds one subfolder per person.")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with _opened(settings) as (engine, stores), Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("Reading pictures", total=None)
        report = sync_folder(
            engine,
            stores,
            args.domain,
            args.images,
            lambda done, total: progress.update(task, completed=done, total=total),
            allow_empty=args.allow_empty,
        )
    if args.json:
        _print_json(asdict(report) | {"complete": report.complete})
    else:
        _print_sync(report)
    return OK if report.complete else PARTIAL


def _print_sync(report: SyncReport) -> None:
    console = Console()
    table = Table("store", "new", "changed", "removed", "unchanged", title=f"Domain {escape(report.domain)}")
    for name, store in report.stores.items():
        counts = (store.new, store.changed, store.removed, store.unchanged)
        table.add_row(name, *(("-",) * 4 if store.error and not any(counts) else map(str, counts)))
    console.print(table)
    console.print(f"{report.pictures} pictures, {report.embedded} read by the models, {report.reused} copied.")
    if report.problems:
        print(f"{len(report.problems)} left out:")
        for problem in report.problems:
            print(f"  {problem.source}: {problem.reason}")
    for name, store in report.stores.items():
        if store.error:
            print(f"{name} is not up to date: {store.error}")


def _search(args: argparse.Namespace, settings: Settings) -> int:
    domain = domain_name(args.domain)
    language = Languages().find(args.language)
    try:
        data = args.picture.read_bytes()
    except OSError as error:
        raise InputError(f"{args.picture} cannot be read: {error.strerror}.") from error
    with _opened(settings) as (engine, stores):
        analysis = engine.analyze(data)
        searcher = Searcher(stores.pkl, stores.pgvector, CircuitBreaker(), settings.pgvector_timeout)
        outcome = searcher.search(analysis.embeddings, domain, args.mode or settings.default_mode, settings.top_k)
        threshold = settings.match_threshold
        if threshold is None:
            threshold = engine.embedder_card.threshold
        if threshold is None:
            raise InputError(f"the card of {engine.embedder_card.name} has no threshold; set MATCH_THRESHOLD")
    answer = analyze_answer(
        analysis,
        outcome,
        domain=domain,
        language=language,
        language_name=args.language,
        threshold=threshold,
        top_k=settings.top_k,
    )
    if args.json:
        _print_json(answer)
    else:
        _print_answer(answer)
    return PARTIAL if "failed" in outcome.mode else OK


def _print_answer(answer: dict[str, Any]) -> None:
    table = Table("face", "person", "distance", "confidence", "nearest in PKL", "nearest in pgvector")
    for number, face in enumerate(answer["faces"], start=1):
        table.add_row(
            str(number),
            escape(face["person"] or "-"),
            "-" if face["distance"] is None else f"{face['distance']:.4f}",
            f"{face['confidence']:.2f}",
            *(_nearest(face[key]) for key in ("pkl_results", "pgvector_results")),
        )
    console = Console()
    console.print(escape(answer["description"]))
    if answer["faces"]:
        console.print(table)
    console.print(f"mode: {answer['mode']}")


def _nearest(results: list[dict[str, Any]]) -> str:
    return escape(f"{results[0]['person']} {results[0]['distance']:.4f}") if results else "-"


def _status(args: argparse.Namespace, settings: Settings) -> int:
    models = ModelStore(settings.models_path)
    embedder, detector = (load_card(models.resolve(name)) for name in (settings.embedder, settings.detector))
    with open_stores(settings, embedder, detector.name) as stores:
        report = _compare_stores(stores, domain_name(args.domain) if args.domain else None)
    if args.json:
        _print_json(report)
    else:
        _print_status(report)
    return PARTIAL if report["pgvector_error"] else OK


def _compare_stores(stores: Stores, only: str | None) -> dict[str, Any]:
    pgvector, error = stores.pgvector, stores.pgvector_error
    names = set(stores.pkl.domains())
    try:
        names.update(pgvector.domains() if pgvector is not None else ())
    except StoreUnavailable as failure:
        pgvector, error = None, str(failure)
    if only is not None and only not in names and not error:
        raise UnknownDomain(f"there is no domain {only!r}; there are: {', '.join(sorted(names)) or 'none'}")
    domains = []
    for name in sorted(names if only is None else {only}):
        ours = stores.pkl.inventory(name)
        theirs = None if pgvector is None else pgvector.inventory(name)
        domains.append(
            {
                "domain": name,
                "pkl": _holding(stores.pkl, name, ours),
                "pgvector": None if pgvector is None or theirs is None else _holding(pgvector, name, theirs),
                "differences": None if theirs is None else _differences(ours, theirs),
            }
        )
    return {"domains": domains, "pgvector_error": error}


def _holding(store: GalleryStore, domain: str, inventory: Mapping[str, str]) -> dict[str, int]:
    people = {source.partition("/")[0] for source in inventory}
    return {"faces": store.count(domain), "pictures": len(inventory), "people": len(people)}


def _differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> dict[str, list[str]]:
    return {
        "only_in_pkl": sorted(ours.keys() - theirs.keys()),
        "only_in_pgvector": sorted(theirs.keys() - ours.keys()),
        "other_content": sorted(source for source in ours.keys() & theirs.keys() if ours[source] != theirs[source]),
    }


def _print_status(report: dict[str, Any]) -> None:
    table = Table("domain", "store", "faces", "pictures", "people")
    for domain in report["domains"]:
        for store in ("pkl", "pgvector"):
            if domain[store] is not None:
                table.add_row(escape(domain["domain"]), store, *map(str, domain[store].values()))
    console = Console()
    if report["domains"]:
        console.print(table)
    else:
        console.print("There is no domain yet. Fill one with `python -m matchers sync --domain D --images DIR`.")
    for domain in report["domains"]:
        for kind, sources in (domain["differences"] or {}).items():
            for source in sources:
                print(f"{domain['domain']}: {kind.replace('_', ' ')}: {source}")
    if report["pgvector_error"]:
        print(f"pgvector does not answer: {report['pgvector_error']}")


def _demo(args: argparse.Namespace, settings: Settings) -> int:
    domain = domain_name(args.domain)
    path = demo_picture()
    if path is None:
        raise InputError("the demo picture is not installed; get it with `pip install --no-deps 'insightface>=2.1,<3'`")
    with _opened(settings) as (engine, stores):
        made = ensure_demo(engine, stores, domain)
    if args.json:
        _print_json({"domain": domain, "made": made, "picture": str(path)})
    else:
        print(f"The domain {domain} {'is made' if made else 'was there already'}. Try it:")
        print(f"  python -m matchers search --domain {domain} {shlex.quote(str(path))}")
    return PARTIAL if stores.pgvector_error else OK


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False))


if __name__ == "__main__":
    sys.exit(main())
