"""Hugging Face folder → GPTQ folder by gptqmodel in this process, which prints what it does.

GPTQ: Frantar et al. 2022, https://arxiv.org/abs/2210.17323. The product is the layout that AutoGPTQ introduced
(checkpoint_format "gptq"), which transformers, gptqmodel and vLLM read.
"""

import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ...backends import placement
from ...backends import threads as cores
from ...core.errors import BackendError, CapacityError, UsageError
from ...core.i18n import _
from ...core.progress import Progress, silent
from ..convert import publish
from . import gptq_folder, passage
from .gptq_source import Source, check, needs, require

__all__ = ["check", "needs", "quantize", "require"]

PAUSE = 60.0
"""Seconds between two points from which an interrupted run can go on: each writes the activations of all samples."""
SMALL = 100_000_000
"""Weights below which starting over costs less than such points."""
_SHORTEST = 512
_FEWEST = 10
"""Tokens below which gptqmodel drops a sample."""
_CHARACTERS = 8
"""More than a token has on average."""
_UNREAD = ("falcon", "gpt2")
"""model_type whose linear layers have classes of their own, which transformers 5.23 leaves with random weights."""


@dataclass(frozen=True, slots=True)
class _Settings:
    bits: int
    group_size: int
    act_order: bool
    sym: bool
    damp: float
    device: str
    resumable: bool

    @property
    def aware(self) -> bool:
        """Whether groups are quantized by weight while rows keep their order, which costs the readers nothing."""
        return not self.act_order and self.group_size > 0


def quantize(
    source: Path,
    target: Path,
    *,
    bits: int = 4,
    group_size: int = 128,
    act_order: bool = False,
    sym: bool = True,
    damp: float = 0.05,
    texts: Sequence[str],
    samples: int = 128,
    device: str | None = None,
    threads: int | None = None,
    work: Path,
    progress: Progress = silent,
) -> tuple[str, ...]:
    """Write the model in `source` as the GPTQ folder `target`, published when it is whole; give notices.

    `damp` is the share of the mean that is added to the Hessian's diagonal. `texts` are paragraphs, of which at most
    `samples` pieces of up to 2,048 tokens are read; `threads` None takes the physical cores that are free to use;
    `progress` counts layers. What is unfinished lies in `work`, and a later call with the same arguments goes on from
    there where gptqmodel can (Llama and Qwen3 MoE, not small ones), else from the start. Raises what `check` raises,
    UsageError for what cannot be meant, CapacityError when memory is short, BackendError when the library fails.
    """
    require(bits, group_size, damp, samples)
    _require_free(source, target)
    found = check(source, bits, group_size)
    chosen = _device(device, threads)
    inside = gptq_folder.stage(found, work / "source")
    settings = _Settings(bits, group_size, act_order, sym, damp, chosen, inside and _resumable(found))
    try:
        made, count = _attempt(found, settings, work, texts, samples, progress)
    except (UsageError, BackendError):
        shutil.rmtree(work, ignore_errors=True)
        raise
    with publish.folder(target) as temporary:
        gptq_folder.write(found, made, temporary, damp_percent=damp)
    shutil.rmtree(work, ignore_errors=True)
    return tuple(_notices(found, count, samples))


def chunks(ids: Sequence[int], bos: int | None, context: int, samples: int) -> list[list[int]]:
    """Cut the tokens of a text into at most `samples` pieces of equal length, evenly spread, each behind BOS.

    Their length is what gives the samples wanted, but 512 at least and `context` at most.
    """
    words = list(ids[1:] if bos is not None and ids and ids[0] == bos else ids)
    length = min(context, max(_SHORTEST, len(words) // samples))
    cut = passage.windows(words if bos is None else [bos, *words], length, bos is not None)
    whole = [piece for piece in cut if len(piece) == length] or [piece for piece in cut if len(piece) >= _FEWEST]
    step = max(1.0, len(whole) / samples)
    return [whole[int(n * step)] for n in range(min(samples, len(whole)))]


def _resumable(source: Source) -> bool:
    """Whether the library can go on with an interrupted run, and that pays; its checkpoints listen to signals."""
    main = threading.current_thread() is threading.main_thread()
    large = sum(prod(tensor.shape) for tensor in source.linears.values()) >= SMALL
    return main and large and source.config.get("model_type") in ("llama", "qwen3_moe")


def _notices(source: Source, count: int, samples: int) -> Iterator[str]:
    if count < samples:
        yield _("The text gave {count} samples of the {wanted} wanted.").format(count=count, wanted=samples)
    if source.config.get("model_type") in _UNREAD:
        yield _("transformers alone cannot read GPTQ models of this architecture: load it with vigtui or gptqmodel.")


def _require_free(source: Path, target: Path) -> None:
    if target.resolve() == source.resolve():
        raise UsageError(_("The product would replace its source {path}.").format(path=source), _("Choose another."))
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise UsageError(_("There is something at {path} already.").format(path=target), _("Choose another name."))


def _device(wanted: str | None, threads: int | None) -> str:
    """Give where the work is done: the GPU where there is one; Apple's lacks operations of the library."""
    import torch

    torch.set_num_threads(threads or min(torch.get_num_threads(), cores.physical_cores()))
    if wanted in (None, "auto"):
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    found = placement.device(wanted)
    return "cuda:0" if str(found) == "cuda" else str(found)


def _attempt(
    source: Source, settings: _Settings, work: Path, texts: Sequence[str], samples: int, progress: Progress
) -> tuple[Path, int]:
    """Quantize, from the start if what an earlier run left does not fit; give the library's folder and the samples."""
    from gptqmodel.looper.checkpoint_store import CheckpointError

    try:
        return _run(source, settings, work, texts, samples, progress)
    except CheckpointError:
        shutil.rmtree(work / "checkpoint", ignore_errors=True)
        return _run(source, settings, work, texts, samples, progress)


def _run(
    source: Source, settings: _Settings, work: Path, texts: Sequence[str], samples: int, progress: Progress
) -> tuple[Path, int]:
    from gptqmodel.looper.checkpoint_store import CheckpointError

    made = work / "made"
    for old in (made, work / "packed", *(work / "checkpoint").glob("attempt-*")):
        shutil.rmtree(old, ignore_errors=True)
    try:
        model = _load(source, settings, work)
        data = _data(model, texts, source.context, samples)
        model.layer_callback = _Layers(progress, model.model.config)
        model.quantize(data, batch_size=1, checkpoint=_checkpoint(work) if settings.resumable else None)
        model.save(str(made))
    except CheckpointError:
        raise
    except (ValueError, RuntimeError, MemoryError) as error:
        if placement.short_of_memory(error):
            raise _full(settings.device) from error
        raise BackendError(
            _("gptqmodel cannot quantize this: {reason}.").format(reason=str(error).rstrip(".")),
            _("Try other options, such as a larger --damp, or make a GGUF."),
        ) from error
    return made, len(data)


def _full(device: str) -> CapacityError:
    if device == "cpu":
        return CapacityError(_("The memory is full."), _("Give fewer --samples, or close other programs."))
    return CapacityError(
        _("The memory of {device} is full.").format(device=device), _("Give fewer --samples, or --device cpu.")
    )


def _load(source: Source, settings: _Settings, work: Path) -> Any:
    """Load the model lazily; a CPU computes in float32, which is as fast as bfloat16 and thrice as fast as float16."""
    import torch
    from gptqmodel import GPTQModel, QuantizeConfig

    values: dict[str, Any] = {
        "bits": settings.bits,
        "group_size": settings.group_size,
        "desc_act": settings.act_order,
        "act_group_aware": settings.aware,
        "sym": settings.sym,
        "damp_percent": settings.damp,
        "device": settings.device,
        "offload_to_disk_path": str(work / "packed"),
    }
    config = QuantizeConfig(**values)
    dtype = torch.float32 if settings.device == "cpu" else getattr(torch, gptq_folder.NAMES[gptq_folder.half(source)])
    return GPTQModel.load(str(work / "source"), config, dtype=dtype, trust_remote_code=False)


def _data(model: Any, texts: Sequence[str], context: int, samples: int) -> list[dict[str, list[int]]]:
    tokenizer = model.tokenizer
    text = "\n\n".join(texts)[: samples * context * _CHARACTERS]
    found = chunks(tokenizer(text)["input_ids"], _bos(tokenizer), context, samples)
    if not found:
        raise UsageError(
            _("The calibration text is too short: it gives fewer than {count} tokens.").format(count=_FEWEST),
            _("Give a few pages of text."),
        )
    return [{"input_ids": piece, "attention_mask": [1] * len(piece)} for piece in found]


def _bos(tokenizer: Any) -> int | None:
    """Give the token that begins every text, or None where the tokenizer puts none."""
    ids, bos = tokenizer("a")["input_ids"], tokenizer.bos_token_id
    return bos if ids and ids[0] == bos else None


class _Layers:
    """Hears of every layer from the library."""

    def __init__(self, progress: Progress, config: Any) -> None:
        self.progress, self.total = progress, int(config.get_text_config().num_hidden_layers)
        progress(_("quantize"), 0, self.total)

    def layer_complete(self, layer_idx: int, submodule_finalized: bool) -> None:
        """Count a layer; it is heard of again, from another thread, when its tensors are packed."""
        if not submodule_finalized:
            self.progress(_("quantize"), layer_idx + 1, self.total)


def _checkpoint(work: Path) -> Any:
    from gptqmodel.looper.checkpoint_store import CheckpointConfig

    class Paced(CheckpointConfig):
        """Says that a point is due after some time rather than some layers."""

        @property
        def interval_layers(self) -> int:
            now = time.monotonic()
            due = now - self.__dict__.setdefault("told", now) >= PAUSE
            if due:
                self.__dict__["told"] = now
            return 1 if due else 1 << 30

    return Paced(path=str(work / "checkpoint"))
