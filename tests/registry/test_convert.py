"""Hugging Face → GGUF, architecture by architecture: llama.cpp computes what transformers computes, from the same
tokens."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vigtui.backends.base import LoadOptions, ModelFiles, Prompt
from vigtui.backends.llama_cpp import LlamaCppBackend
from vigtui.core.progress import silent
from vigtui.registry.convert.model import convert

from .. import tiny
from . import families

TEXTS = [*tiny.SENTENCES, *tiny.TEXTS, "Il a dit : « 12 345,67 € », n'est-ce pas ?", "I'LL don't 2024-11-05 🇫🇷👩‍🚀"]
LLAMA = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
FALCON = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 256}
BLOOM = {"hidden_size": 64, "n_layer": 2}
MPT = {"d_model": 64, "n_layers": 2, "max_seq_len": 256}
LONG = {"rope_theta": 10000.0, "original_max_position_embeddings": 32}


@dataclass(frozen=True)
class Case:
    """A model of transformers' type `kind`, and the vocabulary that goes with it."""

    kind: str
    settings: dict[str, Any]
    pre: str = "gpt-2"
    specials: tuple[str, ...] = families.ENDED
    nfc: bool = False
    begins: str = ""


CASES = {
    "llama2": Case("llama", LLAMA, "llama-bpe"),
    "llama-linear": Case("llama", {**LLAMA, "rope_parameters": {"rope_type": "linear", "factor": 4.0, **LONG}}),
    "llama3": Case(
        "llama",
        {**LLAMA, "tie_word_embeddings": True, "rope_parameters": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, **LONG}},
        "llama-bpe", ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"), begins="<|begin_of_text|>",
    ),
    "llama-yarn": Case("llama", {**LLAMA, "rope_parameters": {"rope_type": "yarn", "factor": 4.0, **LONG}}),
    "llama-yarn-scaled": Case(
        "llama", {**LLAMA, "rope_parameters": {
            "rope_type": "yarn", "factor": 4.0, "attention_factor": 1.4, "beta_fast": 16.0, **LONG}}),
    "llama-biases": Case("llama", {**LLAMA, "attention_bias": True, "mlp_bias": True}, "starcoder"),
    "mistral": Case("mistral", {**LLAMA, "head_dim": 32, "sliding_window": None}, "tekken"),
    "qwen2": Case("qwen2", LLAMA, "qwen2", ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), nfc=True),
    "qwen2-yarn-tied": Case(
        "qwen2", {**LLAMA, "tie_word_embeddings": True,
                  "rope_parameters": {"rope_type": "yarn", "factor": 4.0, **LONG}}, "qwen2"),
    "falcon-7b": Case("falcon", {**FALCON, "multi_query": True}, "falcon"),
    "falcon-each": Case("falcon", {**FALCON, "multi_query": False, "tie_word_embeddings": False}, "falcon"),
    "falcon-40b": Case("falcon", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}, "falcon"),
    "falcon-11b": Case(
        "falcon", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1}),
    "mpt": Case("mpt", {**MPT, "n_heads": 4}, nfc=True),
    "mpt-clipped": Case("mpt", {**MPT, "n_heads": 4, "attn_config": {"clip_qkv": 0.5}}),
    "bloom": Case("bloom", {**BLOOM, "n_head": 4}, "bloom", ("<unk>", "<s>", "</s>", "<pad>")),
    "bloom-6-heads": Case("bloom", {"hidden_size": 96, "n_layer": 2, "n_head": 6}, "bloom", ("<s>", "</s>")),
}  # fmt: skip


class Exact(LlamaCppBackend):
    """Without flash attention and with an F32 cache, as transformers computes."""

    def _tune(self, params: Any) -> None:
        params.flash_attn_type, params.type_k, params.type_v = 0, 0, 0


@contextmanager
def loaded(path: Path) -> Iterator[Exact]:
    engine = Exact()
    engine.load(ModelFiles("tiny", "gguf", path), LoadOptions(context=256, threads=1), silent)
    try:
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="module", params=CASES, ids=list(CASES))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str, Exact]]:
    """The model of transformers, its tokenizer.json, and the same in llama.cpp."""
    case = CASES[request.param]
    folder = tmp_path_factory.mktemp("convert")
    model = families.model(folder / "hf", case.kind, eos_token_id=0, bos_token_id=0, **case.settings)
    words = families.tokenizer(case.pre, case.specials, nfc=case.nfc)
    words = families.begun(words, case.begins) if case.begins else words
    families.write_tokenizer(folder / "hf", words, eos_token=case.specials[-1])
    convert(folder / "hf", folder / "out.gguf", "f32")
    with loaded(folder / "out.gguf") as engine:
        yield model, words, engine


def test_logits_equal_those_of_transformers(made: tuple[Any, str, Exact]) -> None:
    model, _words, engine = made
    random = np.random.default_rng(1)
    tokens = random.integers(5, 470, 60).tolist()
    found = np.stack(list(engine.score(tokens)))
    reference = families.logits(model, tokens)
    assert reference.std() > 0.2
    assert tiny.divergence(found[:, : reference.shape[1]], reference) < 1e-5


def test_texts_become_the_same_tokens(made: tuple[Any, str, Exact]) -> None:
    from tokenizers import Tokenizer

    _model, words, engine = made
    reference = Tokenizer.from_str(words)
    for text in TEXTS:
        if "e\u0301" not in text or '"NFC"' not in words:  # llama.cpp composes no accents; a notice says so
            assert engine.tokenize(Prompt(((text, False),))) == reference.encode(text).ids, text
