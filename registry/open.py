"""From a name to a loaded engine: what the command line, the app and the server share."""

import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from ..backends import placement
from ..backends.base import Backend, LoadOptions, ModelFiles, Remote
from ..core import paths
from ..core.errors import FormatError, NotFoundError, TrustError, UsageError
from ..core.i18n import _
from ..core.progress import Progress, silent
from . import default, memory, running
from . import plan as planning
from .check import check
from .convert import adapter as peft
from .describe import describe
from .hashes import sha256
from .kind import Sniffed
from .record import Record
from .store import Registry

BACKENDS = {
    "gguf": ("llama.cpp", "echo"),
    "safetensors": ("transformers", "echo"),
    "gptq": ("gptq", "echo"),
    "remote": ("remote", "echo"),
}
"""Kind of model → the backends that run it, the usual one first."""
PEFT_BACKENDS = frozenset({"transformers", "gptq"})
"""Backends that take an adapter as the PEFT folder that it is."""
Trust = Callable[[Record], bool]
"""Says whether the Python code that comes with a model may run."""
Opened = TypeVar("Opened")


def resolve(name: str | None) -> Record:
    """Give the model meant by `name`: a record, an abbreviation or a path; None is the default model.

    Raises NotFoundError, or FormatError for a path to something else.
    """
    name = name or default.name()
    path = Path(name).expanduser()
    if os.sep in name or name.startswith(("~", ".")):
        return describe(path)
    try:
        return Registry().find(name)
    except NotFoundError:
        if path.exists():
            return describe(path)
        raise


def files(record: Record) -> ModelFiles:
    """Give what a backend loads."""
    remote = None
    if record.kind == "remote":
        told = record.made_with
        remote = Remote(record.source, str(told.get("model", record.name)), str(told.get("key_env", "")))
    return ModelFiles(record.ref, record.kind, record.path, remote)


def backend_for(record: Record, wanted: str | None = None) -> str:
    """Give the name of the backend that runs `record`. Raises UsageError when `wanted` does not."""
    if record.kind == "adapter":
        raise UsageError(
            _("{name} is an adapter, not a whole model.").format(name=record.ref),
            _("Use it with its base model: -m BASE --lora {name}.").format(name=record.ref),
        )
    suitable = BACKENDS[record.kind]
    if wanted and wanted not in suitable:
        raise UsageError(
            _("The {backend} backend does not run {name}.").format(backend=wanted, name=record.ref),
            _("Use --backend {backend}, or leave it out.").format(backend=suitable[0]),
        )
    return wanted or suitable[0]


def reason(record: Record) -> str:
    """Give the backend that runs `record` and why, or what it lacks here; nothing for an adapter."""
    if record.kind == "adapter":
        return ""
    from ..backends import backend_class

    why = {
        "gguf": _("the engine of GGUF files"),
        "safetensors": _("the engine of Hugging Face folders"),
        "gptq": _("the engine of GPTQ checkpoints, on the GPU where there is one"),
        "remote": _("a server answers"),
    }
    name = backend_for(record)
    return f"{name}: {backend_class(name).unavailable() or why[record.kind]}"


def adapter(
    ref: str, base: Record | None = None, progress: Progress = silent, backend: str = "llama.cpp"
) -> tuple[Path, float]:
    """Give what `backend` applies of `--lora REF[=SCALE]`, and the scale.

    That is a GGUF file for llama.cpp, made once of a PEFT folder and kept in the cache, and the PEFT folder itself for
    the engines of PEFT_BACKENDS. `base` is the model that it will be applied to; None takes the one that the adapter
    names. Raises UsageError, NotFoundError or FormatError.
    """
    name, scale = scaled(ref)
    record = resolve(name)
    if record.kind != "adapter":
        raise UsageError(
            _("{name} is a whole model, not an adapter.").format(name=record.ref),
            _("Give the folder or GGUF file of a LoRA adapter."),
        )
    if backend in PEFT_BACKENDS:
        return _folder(record), scale
    ready = next((file.path for file in record.files if file.path.suffix == ".gguf"), None)
    if ready is None and len(record.files) == 1:
        ready = record.path
    if ready:
        check(ready)
    return ready or _converted(record, base, progress), scale


def _folder(record: Record) -> Path:
    settings = next((file.path for file in record.files if file.path.name == "adapter_config.json"), None)
    if settings is None:
        raise FormatError(
            _("{name} is a GGUF adapter, which only llama.cpp applies.").format(name=record.ref),
            _("Name the PEFT folder that it was made from, or use a GGUF model."),
        )
    check(settings.parent)
    return settings.parent


def scaled(ref: str) -> tuple[str, float]:
    """Give the two parts of REF[=SCALE]. Raises UsageError for a scale that is no number."""
    name, equals, text = ref.rpartition("=")
    if not equals or Path(ref).expanduser().exists():
        return ref, 1.0
    try:
        scale = float(text)
    except ValueError:
        scale = math.nan
    if not math.isfinite(scale):
        raise UsageError(_("“{text}” is no scale of an adapter.").format(text=text), _("Write --lora NAME=0.5."))
    return name, scale


def _converted(record: Record, base: Record | None, progress: Progress) -> Path:
    source, model = record.path, base.path if base else _parent(record)
    check(source)
    sizes = peft.base_sizes(source, model)
    key = " ".join([*(sha256(file, progress) for file in peft.files(source)), str(sizes)])
    target = paths.cache() / "adapters" / f"{hashlib.sha256(key.encode()).hexdigest()}.gguf"
    if not target.exists():
        peft.convert(source, model, target, progress)
    return target


def _parent(record: Record) -> Path | None:
    """Give the path of the first parent that is known here."""
    for name in record.parents:
        try:
            return Registry().find(name).path
        except NotFoundError:
            continue
    return None


def open(
    record: Record,
    options: LoadOptions,
    wanted: str | None = None,
    progress: Progress = silent,
    in_process: bool = False,
    force: bool = False,
) -> Backend:
    """Give an engine with `record` loaded; `force` tries although the plan says that it does not fit.

    Raises UsageError, NotFoundError, FormatError, CapacityError or BackendError.
    """
    name = backend_for(record, wanted)
    if name in ("llama.cpp", "transformers", "gptq"):
        found = check(record.path)
        if not force:
            planning.require(needs(record.ref, found, options), record.ref)
    from .. import backends  # only now: a listing needs none

    backend = backends.create(name, in_process=in_process)
    try:
        backend.load(files(record), options, progress)
    except BaseException:
        backend.close()
        raise
    Registry().use(record)
    running.mark(record, backend)
    return backend


def trusting(attempt: Callable[[LoadOptions], Opened], record: Record, options: LoadOptions, trust: Trust) -> Opened:
    """Give what `attempt` makes of `options`; where `record` needs the code that comes with it, `trust` is asked
    whether that may run, for this load alone. Raises what `attempt` raises, and TrustError without that trust."""
    try:
        return attempt(options)
    except TrustError:
        if not trust(record):
            raise
    return attempt(replace(options, remote_code=True))


def nobody(_record: Record) -> bool:
    """Trust no model's code: the answer where there is nobody to ask."""
    return False


def needs(label: str, found: Sniffed, options: LoadOptions) -> planning.Plan:
    """Give the plan for loading what was found with `options`; the GPU is asked only when memory is short."""
    shape = planning.from_header(found.header) if found.header else planning.from_config(found.config or {})
    weights = found.expected or found.size
    if options.load_in and found.parameters:
        weights = found.parameters if options.load_in == "8bit" else found.parameters * 5 // 8
    if options.gpu_layers or options.device not in (None, "cpu"):
        return planning.plan(label, weights, shape, planning.Machine(), options.context)
    free = planning.Machine(memory=memory.available())
    here = planning.plan(label, _on_cpu(found, options, weights), shape, free, options.context)
    if here.fits_memory or options.gpu_layers == 0 or options.device == "cpu" or (gpu := memory.gpu()) is None:
        return here
    return planning.plan(label, weights, shape, replace(free, gpu=gpu), options.context)


def _on_cpu(found: Sniffed, options: LoadOptions, weights: int) -> int:
    """Give the bytes that `weights` take in the memory of a CPU: transformers widens small models to float32."""
    if found.kind != "safetensors" or options.load_in or not found.parameters:
        return weights
    half = found.quantization in ("F16", "BF16")
    kind = placement.DTYPES.get(options.dtype or "") or placement.cpu_dtype(half, weights)
    return found.parameters * (4 if kind == "float32" else 2)
