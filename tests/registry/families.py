"""Tiny random models of every family that can be converted, made with transformers, each with a trained tokenizer that
cuts text as that family's does."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from .. import tiny

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?"
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
GPT4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK3 = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
)
BLOOM = " ?[^(\\s|[.,!?…。，、।۔،])]+"
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
ENDED = ("<|endoftext|>",)


def split(*regexes: str) -> dict[str, Any]:
    cuts = [{"type": "Split", "pattern": {"Regex": one}, "behavior": "Isolated", "invert": False} for one in regexes]
    return {"type": "Sequence", "pretokenizers": [*cuts, {**BYTES, "use_regex": False}]}


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


PRE = {
    "llama-bpe": split(LLAMA3),
    "qwen2": split(QWEN2),
    "tekken": split(TEKKEN),
    "gpt-4o": split(GPT4O),
    "deepseek-v3": split(*DEEPSEEK3),
    "smaug-bpe": split(LLAMA3),
    "bloom": split(BLOOM),
    "gpt-2": {**BYTES, "use_regex": True},
    "starcoder": sequence({"type": "Digits", "individual_digits": True}, {**BYTES, "use_regex": True}),
    "falcon": sequence(
        {"type": "Punctuation", "behavior": "Contiguous"},
        {**BYTES, "use_regex": True},
        {"type": "Digits", "individual_digits": False},
        {"type": "Split", "pattern": {"Regex": "[0-9][0-9][0-9]"}, "behavior": "Isolated", "invert": False},
    ),
}
"""tokenizer.ggml.pre → `pre_tokenizer` of the tokenizer.json files that it stands for."""
WHOLE = ("llama-bpe", "tekken")
"""Those that take a word of the vocabulary whole."""


@cache
def tokenizer(pre: str, specials: tuple[str, ...] = ENDED, size: int = 480, nfc: bool = False) -> str:
    """The tokenizer.json of a small BPE over `tiny.SENTENCES` and `tiny.TALK`; `specials` are added first.

    It learns merges over the borders of words, so that a text that is cut at another place gives other tokens. Not so
    Falcon's, whose own steps cut inside characters too: no merge of a Falcon was ever learnt over such a border.
    """
    from tokenizers import Tokenizer, decoders, models, trainers
    from tokenizers.pre_tokenizers import ByteLevel

    empty = json.loads(Tokenizer(models.BPE()).to_str())
    learnt = PRE[pre] if pre == "falcon" else {**BYTES, "use_regex": False}
    trained = Tokenizer.from_str(json.dumps({**empty, "pre_tokenizer": learnt}))
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(specials), initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    trained.train_from_iterator([*tiny.SENTENCES, *tiny.TALK] * 3, trainer)
    made = json.loads(trained.to_str())
    made["model"]["ignore_merges"] = pre in WHOLE
    made["pre_tokenizer"] = PRE[pre]
    made["normalizer"] = {"type": "NFC"} if nfc else None
    return json.dumps(made, ensure_ascii=False)


def begun(text: str, token: str) -> str:
    """The tokenizer.json `text` with `token` put before every text."""
    made = json.loads(text)
    id = made["model"]["vocab"][token]
    made["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
    }
    return json.dumps(made, ensure_ascii=False)


def write_tokenizer(path: Path, text: str, **settings: Any) -> None:
    (path / "tokenizer.json").write_text(text, encoding="utf-8")
    (path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def model(path: Path, kind: str, seed: int = 0, rows: int = 480, **settings: Any) -> Any:
    """Write the folder of a random model of the type `kind`, every weight and bias drawn; give the model."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=rows, **settings))
    made = made.float().eval()
    with torch.no_grad():
        for name, weight in made.named_parameters():
            start = 1.0 if weight.dim() == 1 and name.endswith("weight") else 0.0
            weight.normal_(start, 0.15 if weight.dim() == 2 else 0.3)
    made.save_pretrained(path)
    return made


def logits(made: Any, tokens: list[int]) -> Any:
    """The float32 logits (n, n_vocab) of transformers."""
    import torch

    with torch.no_grad():
        return made(torch.tensor([tokens])).logits[0].float().numpy()
