"""adapter_config.json: what it says, and the settings that make an adapter more than a sum of matrices."""

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from ...core.errors import FormatError, UsageError
from ...core.i18n import _

_REBASED = ("pissa", "olora", "loftq", "corda", "lora_ga")
"""Initializations of PEFT that change the base model too."""
_DIFFERENT = (
    "layer_replication", "target_parameters", "alora_invocation_tokens", "megatron_config", "use_qalora", "use_bdlora",
    "arrow_config", "kasa_config", "velora_config", "monteclora_config",
)  # fmt: skip
"""Settings that make more of the pair than a sum of matrices."""


def refuse(config: Mapping[str, Any], adapter: Path) -> None:
    """Raise FormatError for a kind of adapter that cannot be merged, by the name of its setting."""
    problem = next((name for name in _DIFFERENT if config.get(name)), None)
    start = config.get("init_lora_weights")
    if config.get("peft_type", "LORA") != "LORA":
        problem = f"peft_type {config['peft_type']}"
    if problem:
        raise FormatError(
            _("{adapter} uses {problem}, which cannot be merged into a model.").format(
                adapter=adapter, problem=problem
            ),
            _("Load it with PEFT, or train a plain LoRA."),
        )
    if isinstance(start, str) and start.lower().startswith(_REBASED):
        raise FormatError(
            _("{adapter} uses init_lora_weights {start}: its training changed the base model too.").format(
                adapter=adapter, start=start
            ),
            _("Save it with PEFT's path_initial_model_for_weight_conversion, which makes a plain LoRA of it."),
        )


def alpha(config: Mapping[str, Any], given: float | None, folder: Path) -> Any:
    """Give lora_alpha as the settings say it, else the one that is `given`. Raises UsageError without either."""
    stated = config.get("lora_alpha", given)
    if stated is None:
        raise UsageError(
            _("{adapter} does not say its alpha: adapter_config.json is missing.").format(adapter=folder),
            _("Give it with --alpha; Chinese-Vicuna trained with 16."),
        )
    return stated


def positive(value: Any) -> bool:
    """Tell whether this is a number above zero."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value > 0


def tokens(config: Mapping[str, Any], module: str) -> tuple[int, ...]:
    """Give the ids of the tokens of the embedding `module` that were trained; none for settings that are damaged."""
    named: Any = config.get("trainable_token_indices")
    if isinstance(named, Mapping):
        named = next((ids for name, ids in named.items() if f".{module}".endswith(f".{name}")), None)
    ids = named if isinstance(named, list) else []
    whole = all(type(one) is int and 0 <= one < 2**31 for one in ids)
    return tuple(ids) if whole and len(set(ids)) == len(ids) else ()
