"""Which execution provider runs the models, and why not a better one."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import io
import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from models.card import read_card
from models.settings import ExecutionProvider
from runtime.bf16_graph import split_first_convolution
from runtime.bf16_weights import round_weights
from runtime.byte_pairs import may_saturate
from runtime.cores import core_count
from runtime.cpu_graph import has_rectifiers, split_rectifiers
from runtime.errors import ProviderError

logger = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"

_BY_NAME: dict[str, str] = {"cpu": CPU, "cuda": CUDA, "openvino": OPENVINO}
_AUTO_ORDER = (CUDA, OPENVINO, CPU)
_EXTRA = {CUDA: "gpu", OPENVINO: "openvino", CPU: "cpu"}
_PACKAGE = {CUDA: "onnxruntime-gpu", OPENVINO: "onnxruntime-openvino", CPU: "onnxruntime"}

VNNI = frozenset({"avx512_vnni", "avx_vnni"})
BF16 = frozenset({"avx512_bf16", "amx_bf16"})


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How a session uses the machine.

    Attributes:
        threads: for the CPU provider, threads of one run. 0: all cores for a run that is alone, one each in a crowd;
            for that the network is opened twice.
        bf16: for the OpenVINO provider, multiply in bfloat16.
        arena: for the CPU provider, keep memory for the next run. It grows with every new shape of input, so a network
            that sees many does without, and gives all of its memory back after each run.
    """

    threads: int = 0
    bf16: bool = False
    arena: bool = True


@contextlib.contextmanager
def prepared(model: Path, provider: str, *, bf16: bool = False) -> Iterator[Path]:
    """The file to open for ``model``: itself, or a copy whose graph is better for the provider.

    The CPU provider's kernels run some graphs faster; with ``bf16`` some lose less. Where no copy can be written,
    faster graphs are gone without, and the log says so.

    Raises:
        ProviderError: no copy can be written, and ``bf16`` needs one.
    """
    graph = None
    if model.stat().st_size and ((provider == CPU and has_rectifiers(model)) or bf16):
        graph = onnx.load(model)
    if graph is None or not (_for_bf16(graph, model) if bf16 else split_rectifiers(graph)):
        yield model
        return
    with contextlib.ExitStack() as stack:
        try:
            copy = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="face-service-"))) / model.name
            onnx.save(graph, copy)
        except OSError as error:
            if bf16:
                raise ProviderError(
                    f"INFERENCE_PRECISION=bf16 needs a copy of {model}, which the folder for temporary files does not "
                    f"take: {error}. Make room there, let TMPDIR name another folder, or set INFERENCE_PRECISION=fp32."
                ) from error
            logger.warning("%s runs slower than it could, no copy of it could be written: %s", model, error)
            copy = model
        del graph
        yield copy


def _for_bf16(graph: onnx.ModelProto, model: Path) -> bool:
    card = read_card({item.key: item.value for item in graph.metadata_props}, model)
    ends = [[(value - mean) * scale for value in (0, 255)] for mean, scale in zip(card.mean, card.scale, strict=True)]
    low, high = min(map(min, ends)), max(map(max, ends))
    split = split_first_convolution(graph, low, high)
    return round_weights(graph, low, high) or split


def needs_exact_kernels(model: Path) -> bool:
    """Whether this processor's fast kernels for int8 would cut something off in ``model``."""
    return not processor_flags() & VNNI and may_saturate(model)


def create_session(
    model: Path, provider: str, options: SessionOptions, exact: bool | None = None
) -> ort.InferenceSession:
    """Open ``model`` on exactly ``provider`` (an ONNX Runtime provider name).

    Args:
        exact: what :func:`needs_exact_kernels` said of ``model``; None: it is asked.

    Raises:
        ProviderError: the provider is not there, or its libraries do not load, or it has no device, or the processor
            has no arithmetic for the precision asked for.
    """
    if provider not in ort.get_available_providers():
        raise ProviderError(_not_installed(provider))
    if provider == CUDA:
        _preload_cuda()
    if reason := missing_library(provider):
        raise ProviderError(_cannot_load(provider, reason))
    if options.bf16:
        _check_bf16(provider)
    native = native_options(options)
    if provider == CPU and (needs_exact_kernels(model) if exact is None else exact):
        native.add_session_config_entry("session.x64quantprecision", "1")
    providers: list[str | tuple[str, dict[str, Any]]] = [provider] if provider == CPU else [provider, CPU]
    if provider == OPENVINO:
        # The provider's own options leave the precision as it is in the file.
        precision = {"CPU": {"INFERENCE_PRECISION_HINT": "bf16" if options.bf16 else "f32"}}
        providers[0] = (OPENVINO, {"device_type": "CPU", "load_config": json.dumps(precision)})
    try:
        session = ort.InferenceSession(str(model), native, providers=providers, enable_fallback=0)
    except Exception as error:
        if provider == CPU:
            raise
        raise ProviderError(_cannot_load(provider, str(error))) from error
    if session.get_providers()[0] != provider:
        raise ProviderError(_cannot_load(provider, "ONNX Runtime fell back to another provider without a reason"))
    return session


def native_options(options: SessionOptions) -> ort.SessionOptions:
    """ONNX Runtime's own options for the CPU provider."""
    native = ort.SessionOptions()
    native.intra_op_num_threads = options.threads or core_count()
    native.log_severity_level = 3
    native.enable_cpu_mem_arena = native.enable_mem_pattern = options.arena
    # Without spinning a network of a hundred small operators spends half of its time waking threads; beyond the end of
    # a run, or with one pause after the other, spinning would take the cores from the requests beside this one.
    native.add_session_config_entry("session.intra_op.allow_spinning", "1")
    native.add_session_config_entry("session.force_spinning_stop", "1")
    native.add_session_config_entry("session.intra_op.spin_backoff_max", "8")
    return native


def _check_bf16(provider: str) -> None:
    if provider != OPENVINO:
        raise ProviderError(
            f"INFERENCE_PRECISION=bf16 needs the OpenVINO provider, not {provider}: set EXECUTION_PROVIDER=openvino "
            "(`make run EXTRAS=openvino,embedded`), or INFERENCE_PRECISION=fp32."
        )
    if not BF16 & processor_flags():
        raise ProviderError(
            "INFERENCE_PRECISION=bf16 needs a processor with avx512_bf16 or amx_bf16, and this one has neither: "
            "set INFERENCE_PRECISION=fp32."
        )


def processor_flags(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The instructions that the processor has, as Linux calls them; none where that is not told."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())


def candidates(requested: ExecutionProvider) -> Sequence[str]:
    """Provider names to try, best first. An explicit request has one."""
    return _AUTO_ORDER if requested == "auto" else (_BY_NAME[requested],)


def choose_provider(requested: ExecutionProvider, model: Path, options: SessionOptions = SessionOptions()) -> str:
    """The best provider that really opens ``model``; for ``auto`` the log says why a better one was not taken.

    Raises:
        ProviderError: an explicitly requested provider cannot be loaded; the message says what to install.
    """
    reasons: list[str] = []
    for name in candidates(requested):
        if requested == "auto" and name != CPU and name not in ort.get_available_providers():
            reasons.append(f"{name}: {_PACKAGE[name]} is not installed")
            continue
        try:
            if name != CPU or options.bf16:
                create_session(model, name, options)
        except ProviderError as error:
            if requested != "auto":
                raise
            reasons.append(f"{name}: {error}")
            continue
        if reasons:
            logger.info("execution provider %s; not taken: %s", name, "; ".join(reasons))
        return name
    raise ProviderError("No execution provider could be loaded: " + "; ".join(reasons))


def _installed() -> str:
    names = [name for name in _PACKAGE.values() if _has_distribution(name)]
    return ", ".join(names) if names else "no onnxruntime package"


def _has_distribution(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _not_installed(provider: str) -> str:
    package, extra = _PACKAGE[provider], _EXTRA[provider]
    return (
        f"{provider} needs the package {package}, but {_installed()} is installed. The packages exclude each other: "
        f"run `pip uninstall -y {' '.join(sorted(set(_PACKAGE.values())))}` and `pip install '.[{extra},embedded]'`, "
        "or set EXECUTION_PROVIDER=auto."
    )


def _cannot_load(provider: str, detail: str) -> str:
    reason = detail.strip().splitlines()[0][:300]
    if provider == CUDA:
        advice = (
            "Install an NVIDIA driver and the CUDA and cuDNN libraries that this onnxruntime-gpu was built for "
            "(`pip install 'onnxruntime-gpu[cuda,cudnn]'` brings the libraries)"
        )
    else:
        advice = f"Install `pip install '.[{_EXTRA[provider]},embedded]'` again"
    return (
        f"{_PACKAGE[provider]} is installed, but {provider} does not load: {reason}. {advice}, "
        "or set EXECUTION_PROVIDER=auto."
    )


def missing_library(provider: str) -> str | None:
    """What the dynamic loader says about the provider's library; None when it loads or is not there.

    ONNX Runtime writes the name of a missing library to its own log only, so the loader is asked again.
    """
    stem = {CUDA: "cuda", OPENVINO: "openvino"}.get(provider)
    if stem is None:
        return None
    folder = Path(ort.__file__).parent / "capi"
    library = folder / f"libonnxruntime_providers_{stem}.so"
    if not library.exists():
        return None
    shared = folder / "libonnxruntime_providers_shared.so"
    try:
        if shared.exists():
            ctypes.CDLL(str(shared), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error)
    if provider == CUDA:
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            return f"{error} (the NVIDIA driver)"
    return None


def _preload_cuda() -> None:
    """Let ONNX Runtime find the CUDA libraries that pip installed; it prints about those it does not find."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        ort.preload_dlls()
