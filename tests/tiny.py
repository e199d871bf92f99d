"""Real small models, made in a second: a SentencePiece vocabulary, random Llamas, LoRA adapters, a numpy reference.

`write_gguf` and `write_llama` make whole models to talk to; `folder` and `adapter` make files to look at and convert.
"""

import ctypes
import io
import json
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

SENTENCES = [
    "Bonjour, comment installer un modèle sur ma machine ?",
    "L'été, nous mangeons des crêpes près de la forêt où naît la rivière.",
    "How do I quantize the model that I pulled yesterday?",
    "A LoRA is a small adapter, and it changes what the model says.",
    "你好，很高兴能见到你！",
    "今天的天气很好，我们去公园吧。",
    "def main():\n    return 42",
]
TEXTS = [
    "Bonjour, l'été arrive : où est la forêt ?",
    "How do I  pull  two models?",
    " leading and trailing ",
    "你好，模型！今天很好。",
    "emoji 🦙🎉 and é combining e\u0301, tabs\tand\nnew lines\n\n",
    "",
    "x" * 50,
    "<|user|>: salut\n<|assistant|>:",
]


TALK = [
    "Bonjour, comment installer un modèle ? Tapez la commande et attendez la fin du téléchargement.",
    "What is a LoRA? A small set of weights beside the base model, trained for one purpose.",
    "Le lama et la vigogne vivent dans les Andes, où il fait froid la nuit ; l'été est court.",
    "The quick brown fox jumps over the lazy dog, 0123456789 times, and never tires of it!",
    "USER: hello ASSISTANT: hi <|user|>: salut <|assistant|>: coucou [INST] oui [/INST] non",
]


@cache
def sentencepiece_model(kind: str = "bpe", size: int = 420, **options: object) -> bytes:
    return train(SENTENCES * 3, size, model_type=kind, **{"split_by_unicode_script": False, **options})


@cache
def talking_model() -> bytes:
    """The vocabulary of `write_llama`: Llama's conventions, every character covered."""
    return train(TALK * 4, 512, model_type="bpe", character_coverage=1.0, pad_id=-1)


def train(sentences: list[str], size: int, **options: object) -> bytes:
    import sentencepiece

    out = io.BytesIO()
    settings = {
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "byte_fallback": True,
        "character_coverage": 0.98,
        "minloglevel": 2,
        "hard_vocab_limit": False,
        **options,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=out, vocab_size=size, **settings
    )
    return out.getvalue()


def config(**changes: object) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 96,
        "vocab_size": 420,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
        **changes,
    }


def weights(
    config: dict, bias: bool = False, seed: int = 0, scale: float = 0.15, norms: bool = True
) -> dict[str, np.ndarray]:
    """Random float32 weights by Hugging Face name, deviating by `scale`; `norms` random around one, else all ones."""
    random = np.random.default_rng(seed)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    q, kv = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    for n in range(config["num_hidden_layers"]):
        at = f"model.layers.{n}."
        for name, shape in {
            "self_attn.q_proj": (q, hidden),
            "self_attn.k_proj": (kv, hidden),
            "self_attn.v_proj": (kv, hidden),
            "self_attn.o_proj": (hidden, q),
        }.items():
            shapes[f"{at}{name}.weight"] = shape
            if bias:
                shapes[f"{at}{name}.bias"] = shape[:1]
        shapes |= {f"{at}mlp.gate_proj.weight": (inner, hidden), f"{at}mlp.up_proj.weight": (inner, hidden)}
        shapes |= {f"{at}mlp.down_proj.weight": (hidden, inner)}
        shapes |= {f"{at}input_layernorm.weight": (hidden,), f"{at}post_attention_layernorm.weight": (hidden,)}
    drawn = {name: norms or "norm" not in name for name in shapes}
    found = {
        name: random.normal(0, scale, shape).astype(np.float32) if drawn[name] else np.zeros(shape, np.float32)
        for name, shape in shapes.items()
    }
    return {name: w + 1 if "norm" in name else w for name, w in found.items()}


def bfloat16(array: np.ndarray) -> np.ndarray:
    """The upper halves of float32, as uint16."""
    return (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def write_safetensors(path: Path, tensors: dict[str, tuple[str, np.ndarray]]) -> None:
    """Write (dtype name, array of its bytes) as the format says, for dtypes that numpy lacks."""
    header, data = {}, b""
    for name, (dtype, array) in tensors.items():
        raw = array.tobytes()
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def folder(
    path: Path,
    tensors: dict[str, np.ndarray] | None = None,
    settings: dict | None = None,
    tokenizer: bytes | None = None,
    **changes: object,
) -> Path:
    """A Hugging Face Llama folder; `changes` go into config.json, `settings` into tokenizer_config.json."""
    path.mkdir(parents=True, exist_ok=True)
    described = config(**changes)
    (path / "config.json").write_text(json.dumps(described))
    (path / "tokenizer.model").write_bytes(sentencepiece_model() if tokenizer is None else tokenizer)
    (path / "tokenizer_config.json").write_text(json.dumps(settings or {}))
    save_file(weights(described) if tensors is None else tensors, path / "model.safetensors")
    return path


def write_llama(
    path: Path,
    *,
    seed: int = 0,
    layers: int = 2,
    width: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    ffn: int = 128,
    context: int = 2048,
    scale: float = 0.3,
) -> Path:
    """Write the folder of a random Llama with grouped-query attention that ends its answers with `</s>`."""
    import sentencepiece

    words = talking_model()
    shape = {
        "vocab_size": sentencepiece.SentencePieceProcessor(model_proto=words).vocab_size(),
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": ffn,
        "max_position_embeddings": context,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tensors = weights(config(**shape), seed=seed, scale=scale, norms=False)
    return folder(path, tensors, settings, words, **shape)


OWN_CODE = """
import pathlib
pathlib.Path({mark!r}).open("a").write("ran ")
from transformers import LlamaConfig, LlamaForCausalLM
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


def write_own(path: Path, mark: Path) -> Path:
    """Write a Llama that needs the Python code in its folder, which leaves `mark` when it runs."""
    described = json.loads((write_llama(path) / "config.json").read_text())
    table = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    described |= {"model_type": "own", "architectures": ["OwnModel"], "auto_map": table}
    (path / "config.json").write_text(json.dumps(described))
    (path / "own.py").write_text(OWN_CODE.format(mark=str(mark)))
    return path


def write_gguf(path: Path, **shape: int) -> Path:
    """Write such a model as an F32 GGUF file through vigtui's own converter."""
    from vigtui.registry.convert.model import convert

    convert(write_llama(path.with_suffix(".hf"), **shape), path, "f32")
    return path


def adapter(path: Path, base: Path, rank: int = 4, seed: int = 5, **changes: object) -> Path:
    """A PEFT LoRA folder on all seven linears of `base`, written as PEFT writes it."""
    path.mkdir(parents=True, exist_ok=True)
    described = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 8,
        "base_model_name_or_path": str(base),
        "bias": "none",
        **changes,
    }
    (path / "adapter_config.json").write_text(json.dumps(described))
    save_file(factors(base, rank, seed), path / "adapter_model.safetensors")
    return path


def factors(base: Path, rank: int, seed: int = 5, ranks: dict[str, int] | None = None) -> dict[str, np.ndarray]:
    random, found = np.random.default_rng(seed), {}
    for name, weight in weights(json.loads((base / "config.json").read_text())).items():
        if "proj" in name:
            r = next((r for end, r in (ranks or {}).items() if end in name), rank)
            at = f"base_model.model.{name.removesuffix('.weight')}"
            found[f"{at}.lora_A.weight"] = random.normal(0, 0.2, (r, weight.shape[1])).astype(np.float32)
            found[f"{at}.lora_B.weight"] = random.normal(0, 0.2, (weight.shape[0], r)).astype(np.float32)
    return found


def forward(tensors: dict[str, np.ndarray], config: dict, tokens: Sequence[int]) -> np.ndarray:
    """Logits (n, n_vocab) of a Llama in float64, written from the paper and Hugging Face's conventions."""
    w = {name: array.astype(np.float64) for name, array in tensors.items()}
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    dim = config.get("head_dim") or config["hidden_size"] // heads
    n = len(tokens)
    factor = (config.get("rope_scaling") or {}).get("factor", 1.0)
    angle = np.outer(np.arange(n) / factor, config["rope_theta"] ** (-np.arange(0, dim, 2) / dim))
    cos, sin = np.cos(np.hstack([angle, angle])), np.sin(np.hstack([angle, angle]))

    def norm(x, name):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config["rms_norm_eps"]) * w[name]

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)

    def rope(x):
        return x * cos + np.concatenate([-x[..., dim // 2 :], x[..., : dim // 2]], -1) * sin

    def split(x, count):
        return x.reshape(n, count, dim).swapaxes(0, 1)

    x = w["model.embed_tokens.weight"][list(tokens)]
    mask = np.triu(np.full((n, n), -np.inf), 1)
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        h = norm(x, at + "input_layernorm.weight")
        q = rope(split(linear(h, at + "self_attn.q_proj"), heads))
        k = rope(split(linear(h, at + "self_attn.k_proj"), kv)).repeat(heads // kv, 0)
        v = split(linear(h, at + "self_attn.v_proj"), kv).repeat(heads // kv, 0)
        scores = q @ k.swapaxes(1, 2) / np.sqrt(dim) + mask
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ v
        x = x + linear(mixed.swapaxes(0, 1).reshape(n, heads * dim), at + "self_attn.o_proj")
        h = norm(x, at + "post_attention_layernorm.weight")
        gate = linear(h, at + "mlp.gate_proj")
        x = x + linear(gate / (1 + np.exp(-gate)) * linear(h, at + "mlp.up_proj"), at + "mlp.down_proj")
    return norm(x, "model.norm.weight") @ w.get("lm_head.weight", w["model.embed_tokens.weight"]).T


def divergence(ours: np.ndarray, reference: np.ndarray) -> float:
    """Mean KL divergence of the predicted distributions, in nats."""

    def log_softmax(x):
        x = x.astype(np.float64) - x.max(-1, keepdims=True)
        return x - np.log(np.exp(x).sum(-1, keepdims=True))

    p, q = log_softmax(reference), log_softmax(ours)
    return float((np.exp(p) * (p - q)).sum(-1).mean())


class Loaded:
    """A GGUF model in llama.cpp, through the low-level API: exact attention and an F32 KV cache."""

    def __init__(self, library, model, path: Path) -> None:
        self.C, self.model, self.path = library, model, path
        self.vocab = library.llama_model_get_vocab(model)

    def logits(self, tokens: Sequence[int], adapter: Path | None = None) -> np.ndarray:
        C = self.C
        settings = C.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_threads, settings.n_threads_batch = 256, 256, 1, 1
        settings.flash_attn_type, settings.type_k, settings.type_v = 0, 0, 0
        context = C.llama_init_from_model(self.model, settings)
        assert context
        if adapter:
            loaded = C.llama_adapter_lora_init(self.model, str(adapter).encode())
            assert loaded, "llama.cpp refuses the adapter"
            C.llama_set_adapters_lora(context, (C.llama_adapter_lora_p_ctypes * 1)(loaded), 1, (ctypes.c_float * 1)(1))
        batch = C.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
            batch.seq_id[i][0] = 0
        assert C.llama_decode(context, batch) == 0
        size = C.llama_vocab_n_tokens(self.vocab)
        found = np.ctypeslib.as_array(C.llama_get_logits(context), (len(tokens), size)).copy()
        C.llama_batch_free(batch)
        C.llama_free(context)
        return found

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        raw = text.encode()
        out = (ctypes.c_int32 * (len(raw) + 8))()
        count = self.C.llama_tokenize(self.vocab, raw, len(raw), out, len(raw) + 8, special, special)
        assert count >= 0
        return list(out[:count])

    def text(self, key: str) -> str:
        buffer = ctypes.create_string_buffer(1 << 16)
        count = self.C.llama_model_meta_val_str(self.model, key.encode(), buffer, len(buffer))
        return buffer.value.decode() if count >= 0 else ""


@contextmanager
def load(path: Path):
    """Load `path` in this process; no native logs."""
    from vigtui.backends.llama_native import bindings

    C = bindings()
    settings = C.llama_model_default_params()
    settings.n_gpu_layers = 0
    model = C.llama_model_load_from_file(str(path).encode(), settings)
    assert model, f"llama.cpp refuses {path}"
    try:
        yield Loaded(C, model, path)
    finally:
        C.llama_model_free(model)


def rewrite_gguf(source: Path, target: Path, change: Callable[[str, Any], Any]) -> Path:
    """Write `source` again as `target` with every metadata value as `change(key, value)` gives it; None drops it."""
    import gguf

    reader, writer = gguf.GGUFReader(source), gguf.GGUFWriter(target, "llama")
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        if (value := change(key, field.contents())) is not None:
            writer.add_key_value(key, value, field.types[0], field.types[-1] if len(field.types) > 1 else None)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
