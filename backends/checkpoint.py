"""Loading a Hugging Face folder with transformers, in silence, and what its model then tells of itself."""

import importlib.util
import logging
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import BackendError, CapacityError, FormatError, TrustError
from ..core.i18n import _
from ..core.progress import Progress
from . import placement
from .base import LoadOptions

if TYPE_CHECKING:
    import torch

_POSITIONS = ("wpe", "embed_positions", "position_embeddings")
"""What models call a table of positions, beyond which there is nothing."""


def load(folder: Path, options: LoadOptions, progress: Progress) -> Any:
    """Give the causal language model in `folder`, ready to run; nothing is asked of the hub.

    Raises what transformers raises, to be put into words by `mapped`, and FormatError when weights are missing.
    """
    common: Any = {"local_files_only": True, "trust_remote_code": options.remote_code}
    with _quiet(progress):
        # Importing it takes two seconds: nothing is imported before a load.
        from transformers import AutoConfig, AutoModelForCausalLM

        config: Any = AutoConfig.from_pretrained(folder, **common)
        chosen = placement.device(options.device)
        kind = placement.dtype(options.dtype, getattr(config, "dtype", None), chosen, _size(folder))
        made: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=kind,
            device_map=placement.spread(options.device, chosen),
            quantization_config=_packed(options, kind),
            output_loading_info=True,
            **common,
        )
    loaded, found = made
    if found["missing_keys"]:
        raise FormatError(
            _("{path} lacks weights: {names}.").format(path=folder, names=", ".join(sorted(found["missing_keys"])[:3])),
            _("Fetch it again."),
        )
    return loaded.eval()


@contextmanager
def mapped(path: Path) -> Iterator[None]:
    """Turn what a library raises while it loads `path` into a sentence of ours."""
    from safetensors import SafetensorError

    try:
        yield
        return
    except (
        OSError, ValueError, RuntimeError, MemoryError, ImportError, KeyError, TypeError, AttributeError, EOFError,
        NotImplementedError, AssertionError, SafetensorError, pickle.UnpicklingError,
    ) as error:  # fmt: skip
        short, said = placement.short_of_memory(error), str(error).strip()
        kind = type(error).__name__
    if short:
        placement.release()
        raise CapacityError(
            _("{path} does not fit the memory.").format(path=path),
            _("Try `--load-in 4bit`, `--dtype bf16`, another `--device`, or a smaller model."),
        )
    if "trust_remote_code" in said:
        raise TrustError(
            _("{path} needs the Python code that comes with it.").format(path=path),
            _("If you trust its authors, load it with `--trust-remote-code`."),
        )
    raise FormatError(
        _("transformers cannot load {path}: {reason}.").format(
            path=path, reason=said.partition("\n")[0][:300].rstrip(".") or kind
        ),
        _("`vigtui show {path}` tells what it is.").format(path=path),
    )


@contextmanager
def _quiet(progress: Progress) -> Iterator[None]:
    """Keep the libraries from printing, and tell `progress` of their own bar: tensors loaded, of how many."""
    with silenced():
        from transformers.utils import logging as its_logging

        its_logging.set_verbosity_error()

        def bar(_factory: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
            if given and named.get("desc") == "Loading weights":
                return _told(list(given[0]), progress)
            return its_logging.EmptyTqdm(*given, **named)

        before = its_logging.set_tqdm_hook(bar)
        try:
            yield
        finally:
            its_logging.set_tqdm_hook(before)


@contextmanager
def silenced() -> Iterator[None]:
    """Keep the warnings of libraries off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _told(items: Sequence[Any], progress: Progress) -> Iterator[Any]:
    for done, item in enumerate(items):
        progress("load", done, len(items))
        yield item


def _packed(options: LoadOptions, kind: "torch.dtype") -> Any:
    """Give the configuration of bitsandbytes for `load_in`, None without it."""
    if options.load_in is None:
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise BackendError(
            _("--load-in {bits} needs bitsandbytes, which is not installed.").format(bits=options.load_in),
            "pip install bitsandbytes",
        )
    from transformers import BitsAndBytesConfig

    if options.load_in == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=kind)


def use_threads(count: int) -> None:
    """Have PyTorch compute with that many threads."""
    import torch

    torch.set_num_threads(count)


def _size(folder: Path) -> int:
    files = list(folder.glob("*.safetensors")) or list(folder.glob("*.bin"))
    return sum(file.stat().st_size for file in files)


def rows(loaded: Any) -> int:
    """Give the number of logits."""
    head = loaded.get_output_embeddings()
    return int(getattr(head, "out_features", 0) or loaded.config.get_text_config().vocab_size)


def ends(loaded: Any) -> list[int]:
    """Give the EOS ids that the configurations name, one or several."""
    found: list[int] = []
    for config in (loaded.config, getattr(loaded, "generation_config", None)):
        ids = getattr(config, "eos_token_id", None)
        found += ids if isinstance(ids, list) else [ids] if isinstance(ids, int) else []
    return found


def parameters(loaded: Any) -> int:
    """Count the weights, those of packed linear layers as if they were not."""
    packed = (m for m in loaded.modules() if hasattr(m, "in_features") and m._parameters.get("weight") is None)
    return int(loaded.num_parameters()) + sum(module.in_features * module.out_features for module in packed)


def positions(loaded: Any) -> int | None:
    """Give the rows of a table of positions, None where positions are computed."""
    tables = (module for name, module in loaded.named_modules() if name.rpartition(".")[2] in _POSITIONS)
    return next((rows for table in tables if isinstance(rows := getattr(table, "num_embeddings", None), int)), None)
