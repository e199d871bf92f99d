"""How a tokenizer.json cuts text into words before BPE, and which pre-tokenizer of llama.cpp does the same.

A way of cutting is written as its steps: "split REGEX", "digits" (one by one), "numbers" (runs of digits),
"punctuation". llama.cpp's are in llm_tokenizer_bpe of src/llama-vocab.cpp, which also fixes for each name whether a
word of the vocabulary is taken whole, without merges.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...core.errors import FormatError
from ...core.i18n import _

_SHORT = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPELT = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_END = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s"
_SIGNS = r" ?[^\s\p{L}\p{N}]+"

GPT2 = r"split 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What ByteLevel with use_regex does."""
LLAMA3 = rf"split {_SHORT}|{_WORDS}|\p{{N}}{{1,3}}|{_SIGNS}[\r\n]*|{_END}"
QWEN2 = rf"split {_SHORT}|{_WORDS}|\p{{N}}|{_SIGNS}[\r\n]*|{_END}"
TEKKEN = rf"split {_CASED % ('', '')}|\p{{N}}|{_SIGNS}[\r\n/]*|{_END}"
GPT4O = rf"split {_CASED % (_SHORT + '?', _SHORT + '?')}|\p{{N}}{{1,3}}|{_SIGNS}[\r\n/]*|{_END}"
BLOOM = "split  ?[^(\\s|[.,!?…。，、।۔،])]+"
DEEPSEEK3 = (
    r"split \p{N}{1,3}",
    "split [一-龥぀-ゟ゠-ヿ]+",
    r"split [!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|" + _END,
)

NAMES: Mapping[tuple[tuple[str, ...], bool], str] = {
    ((GPT2,), False): "gpt-2",
    ((LLAMA3,), True): "llama-bpe",
    ((LLAMA3,), False): "smaug-bpe",
    ((QWEN2,), False): "qwen2",
    (("punctuation", GPT2, "numbers", "split [0-9][0-9][0-9]"), False): "falcon",
    (("digits", GPT2), False): "starcoder",
    ((BLOOM,), False): "bloom",
    ((TEKKEN,), True): "tekken",
    ((GPT4O,), False): "gpt-4o",
    (DEEPSEEK3, False): "deepseek-v3",
}
"""(Steps, words of the vocabulary taken whole) → tokenizer.ggml.pre."""
LOOSE = ("tekken", "gpt-4o")
"""Those whose cased letters are A to Z in llama.cpp, and whose words have no combining marks."""
_COVERING = (GPT2, LLAMA3, QWEN2, TEKKEN, GPT4O)
"""Expressions that match every character, so that keeping only the matches keeps all."""


def recognise(setting: Any, whole: bool, path: Path) -> str:
    """Give tokenizer.ggml.pre for the `pre_tokenizer` of the tokenizer.json at `path`; `whole` is its ignore_merges.

    Raises FormatError, naming the steps, when llama.cpp has none that does the same.
    """
    steps = tuple(step for step in _steps(setting) if step)
    name = NAMES.get((steps, whole))
    if name is None:
        raise FormatError(
            _("{path} cuts text into words in a way that llama.cpp does not know: {steps}.").format(
                path=path, steps=" → ".join(step[:200] for step in steps) + (" (ignore_merges)" if whole else "")
            ),
            _("Pull a GGUF build of this model, or run it with the transformers backend."),
        )
    return name


def bytewise(setting: Any) -> bool:
    """Tell whether the words are written in GPT-2's alphabet of bytes."""
    parts = setting.get("pretokenizers") if isinstance(setting, dict) else None
    if isinstance(parts, list):
        return any(map(bytewise, parts))
    return isinstance(setting, dict) and setting.get("type") == "ByteLevel"


def _steps(setting: Any) -> Iterator[str]:
    kind = setting.get("type") if isinstance(setting, dict) else None
    if kind == "Sequence" and isinstance(setting.get("pretokenizers"), list):
        for part in setting["pretokenizers"]:
            yield from _steps(part)
    elif kind == "ByteLevel" and not setting.get("add_prefix_space", True):
        yield GPT2 if setting.get("use_regex", True) else ""
    elif kind == "Digits":
        yield "digits" if setting.get("individual_digits") else "numbers"
    elif kind == "Punctuation" and setting.get("behavior", "Isolated") == "Contiguous":
        yield "punctuation"
    elif kind == "Split":
        yield _split(setting)
    else:
        yield str(setting)


def _split(setting: Mapping[str, Any]) -> str:
    pattern = setting.get("pattern")
    if not isinstance(pattern, dict) or not isinstance(pattern.get("Regex"), str):
        return str(setting)
    step = f"split {pattern['Regex']}"
    step = step.replace(_SPELT, _SHORT)
    kept = setting.get("behavior") == "Isolated"
    removed = setting.get("behavior") == "Removed" and setting.get("invert") is True and step in _COVERING
    return step if kept or removed else f"{step} ({setting.get('behavior')})"
