"""The names of tensors in an adapter: which module or parameter of the base each belongs to, and as what.

As get_peft_model_state_dict of peft/utils/save_and_load.py writes them, with and without the prefix and the adapter's
name that older versions kept.
"""

LONGEST = 512
"""Characters of a name that is read."""
REPLACED, IGNORED = "replaced", "original_module"
_PREFIX = "base_model.model."
_MARKS = (
    "lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector", "token_adapter",
    "modules_to_save", "base_layer", IGNORED,
)  # fmt: skip


def place(key: str) -> tuple[str, str]:
    """Give (module, part), (parameter, REPLACED), or no part for a name that PEFT does not write.

    The part is the mark, "lora_B.bias", or IGNORED for the base's own copy of a module that was replaced. The name of
    the adapter, as in lora_A.default.weight, says nothing.
    """
    parts = key.removeprefix(_PREFIX).split(".") if len(key) <= LONGEST else []
    at = next((n for n, part in enumerate(parts) if part in _MARKS), 0)
    mark, rest = (parts[at], parts[at + 1 :]) if parts else ("", [])
    if at == 0:
        return ".".join(parts), REPLACED if parts and mark not in _MARKS else ""
    module, last = ".".join(parts[:at]), "weight"
    if mark == IGNORED:
        return module, IGNORED
    if rest and rest[-1] in ("weight", "bias"):
        last = rest.pop()
    elif rest and rest[0] == "trainable_tokens_delta":
        rest = rest[1:]
    if len(rest) > 1 or (last == "bias" and mark not in ("lora_B", "modules_to_save", "base_layer")):
        return key, ""
    if mark in ("modules_to_save", "base_layer"):
        return f"{module}.{last}", REPLACED
    return module, f"{mark}.bias" if last == "bias" else mark
