"""A tiny Llama with random weights, as a Hugging Face folder and as GGUF: made in a second, loaded by the real code."""

import io
import json
from pathlib import Path

TEXTS = [
    "Bonjour, comment installer un modèle ? Tapez la commande et attendez la fin du téléchargement.",
    "What is a LoRA? A small set of weights beside the base model, trained for one purpose.",
    "Le lama et la vigogne vivent dans les Andes, où il fait froid la nuit ; l'été est court.",
    "The quick brown fox jumps over the lazy dog, 0123456789 times, and never tires of it!",
    "USER: hello ASSISTANT: hi <|user|>: salut <|assistant|>: coucou [INST] oui [/INST] non",
]


def tokenizer_model(vocabulary: int = 512) -> bytes:
    """Train a SentencePiece BPE with Llama's conventions: byte fallback, unk 0, bos 1, eos 2."""
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 4),
        model_writer=out,
        model_type="bpe",
        vocab_size=vocabulary,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return out.getvalue()


def write_llama(
    folder: Path,
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
    """Write config, tokenizer and float32 safetensors of a random Llama with grouped-query attention."""
    import numpy as np
    import sentencepiece
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    model = tokenizer_model()
    vocabulary = sentencepiece.SentencePieceProcessor(model_proto=model).vocab_size()  # pyright: ignore
    (folder / "tokenizer.model").write_bytes(model)
    rng = np.random.default_rng(seed)
    head = width // heads
    shapes = {"model.embed_tokens.weight": (vocabulary, width), "lm_head.weight": (vocabulary, width)}
    for i in range(layers):
        block = f"model.layers.{i}."
        shapes |= {
            block + "self_attn.q_proj.weight": (width, width),
            block + "self_attn.k_proj.weight": (kv_heads * head, width),
            block + "self_attn.v_proj.weight": (kv_heads * head, width),
            block + "self_attn.o_proj.weight": (width, width),
            block + "mlp.gate_proj.weight": (ffn, width),
            block + "mlp.up_proj.weight": (ffn, width),
            block + "mlp.down_proj.weight": (width, ffn),
        }
    tensors = {name: rng.normal(0, scale, shape).astype(np.float32) for name, shape in shapes.items()}
    norms = ["model.norm.weight"]
    norms += [f"model.layers.{i}.{n}_layernorm.weight" for i in range(layers) for n in ("input", "post_attention")]
    tensors |= {name: np.ones(width, dtype=np.float32) for name in norms}
    save_file(tensors, folder / "model.safetensors")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    )
    return folder


def write_gguf(path: Path, **shape: int) -> Path:
    """Write such a model as an F32 GGUF file through vigtui's own converter."""
    from vigtui.registry.convert import llama

    llama.convert(write_llama(path.with_suffix(".hf"), **shape), path, "f32")
    return path
