"""Models that the benchmarks need: the embedded one, and a random Llama of 1.1 billion parameters made on the spot."""

import ctypes
import json
from pathlib import Path

from vigtui import assets

from .table import CACHE

LAYERS, WIDTH, FFN, HEADS, KV_HEADS, WORDS = 22, 2048, 5632, 32, 4, 32000  # TinyLlama's shape


def embedded() -> Path:
    """Give the embedded model."""
    return assets.path("vigogneau/vigogneau.gguf")


def billion() -> Path:
    """Give a 1.1B Llama of random weights in Q4_K_M, made once and kept in bench/.cache."""
    path = CACHE / "random-1.1b.Q4_K_M.gguf"
    if not path.exists():
        CACHE.mkdir(exist_ok=True)
        source = CACHE / "random-1.1b.f16.gguf"
        write(source)
        quantize(source, path)
        source.unlink()
    return path


def folder() -> Path:
    """Give the same Llama as a Hugging Face folder of float16 weights in two shards, kept in bench/.cache."""
    path = CACHE / "random-1.1b-hf"
    if not (path / "config.json").exists():
        path.mkdir(parents=True, exist_ok=True)
        _weights(path)
        _words(path)
        config = {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float16",
            "hidden_size": WIDTH, "intermediate_size": FFN, "num_hidden_layers": LAYERS, "vocab_size": WORDS,
            "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "rms_norm_eps": 1e-5,
            "max_position_embeddings": 2048, "tie_word_embeddings": False, "hidden_act": "silu",
            "bos_token_id": 1, "eos_token_id": 2,
        }  # fmt: skip
        (path / "config.json").write_text(json.dumps(config))
    return path


def adapter(rank: int = 16) -> Path:
    """Give a random LoRA adapter of all seven linear modules for `folder`, kept in bench/.cache."""
    import numpy as np
    from safetensors.numpy import save_file

    path = CACHE / f"random-1.1b-lora-r{rank}"
    if not (path / "adapter_config.json").exists():
        path.mkdir(parents=True, exist_ok=True)
        random, tensors = np.random.default_rng(1), {}
        for name, (rows, columns) in _linears().items():
            at = f"base_model.model.{name}"
            tensors[f"{at}.lora_A.weight"] = random.normal(0, 0.02, (rank, columns)).astype(np.float32)
            tensors[f"{at}.lora_B.weight"] = random.normal(0, 0.02, (rows, rank)).astype(np.float32)
        save_file(tensors, path / "adapter_model.safetensors")
        modules = sorted({name.rpartition(".")[2] for name in _linears()})
        settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank, "bias": "none"}
        settings |= {"target_modules": modules, "base_model_name_or_path": str(folder())}
        (path / "adapter_config.json").write_text(json.dumps(settings))
    return path


def _linears() -> dict[str, tuple[int, int]]:
    """Give every linear module by its Hugging Face name, with its (rows, columns)."""
    kv = KV_HEADS * (WIDTH // HEADS)
    shapes = {"self_attn.q_proj": (WIDTH, WIDTH), "self_attn.k_proj": (kv, WIDTH), "self_attn.v_proj": (kv, WIDTH)}
    shapes |= {"self_attn.o_proj": (WIDTH, WIDTH), "mlp.gate_proj": (FFN, WIDTH), "mlp.up_proj": (FFN, WIDTH)}
    shapes |= {"mlp.down_proj": (WIDTH, FFN)}
    return {f"model.layers.{i}.{name}": shape for i in range(LAYERS) for name, shape in shapes.items()}


def _weights(path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    random = np.random.default_rng(0)
    shapes = {f"{name}.weight": shape for name, shape in _linears().items()}
    shapes |= {"model.embed_tokens.weight": (WORDS, WIDTH), "lm_head.weight": (WORDS, WIDTH)}
    norms = [
        f"model.layers.{i}.{name}.weight"
        for i in range(LAYERS)
        for name in ("input_layernorm", "post_attention_layernorm")
    ]
    tensors = {name: random.normal(0, 0.02, shape).astype(np.float16) for name, shape in shapes.items()}
    tensors |= {name: np.ones(WIDTH, np.float16) for name in (*norms, "model.norm.weight")}
    names, parts = sorted(tensors), ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    held = {name: parts[2 * number >= len(names)] for number, name in enumerate(names)}
    for part in parts:
        save_file({name: tensors[name] for name in names if held[name] == part}, path / part, {"format": "pt"})
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": held}))


def _words(path: Path) -> None:
    """Write a SentencePiece model of made-up words."""
    from sentencepiece import sentencepiece_model_pb2 as format

    model = format.ModelProto()
    model.trainer_spec.model_type = format.TrainerSpec.BPE
    model.trainer_spec.byte_fallback = True
    model.normalizer_spec.name = "identity"
    kinds = {"<unk>": 2, "<s>": 3, "</s>": 3} | {f"<0x{byte:02X}>": 6 for byte in range(256)}
    for number, piece in enumerate([*kinds, *(f"▁w{i:x}" for i in range(WORDS - len(kinds)))]):
        model.pieces.add(piece=piece, score=-float(number), type=kinds.get(piece, 1))
    (path / "tokenizer.model").write_bytes(model.SerializeToString())
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))


def write(path: Path) -> None:
    """Write the F16 file. One random block of memory serves all tensors, each from another offset."""
    import gguf
    import numpy as np

    pool = np.random.default_rng(0).normal(0, 0.02, 1 << 24).astype(np.float16)
    head = WIDTH // HEADS
    shapes = {"token_embd": (WORDS, WIDTH), "output": (WORDS, WIDTH)}
    for i in range(LAYERS):
        shapes |= {
            f"blk.{i}.attn_q": (WIDTH, WIDTH),
            f"blk.{i}.attn_k": (KV_HEADS * head, WIDTH),
            f"blk.{i}.attn_v": (KV_HEADS * head, WIDTH),
            f"blk.{i}.attn_output": (WIDTH, WIDTH),
            f"blk.{i}.ffn_gate": (FFN, WIDTH),
            f"blk.{i}.ffn_up": (FFN, WIDTH),
            f"blk.{i}.ffn_down": (WIDTH, FFN),
        }
    writer = gguf.GGUFWriter(path, "llama", use_temp_file=False)
    writer.add_context_length(2048)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    vocabulary(writer)
    for number, (name, (rows, columns)) in enumerate(shapes.items()):
        values = np.resize(np.roll(pool, 1009 * number), rows * columns).reshape(rows, columns)
        writer.add_tensor(f"{name}.weight", values)
    for name in ("output_norm", *(f"blk.{i}.{n}_norm" for i in range(LAYERS) for n in ("attn", "ffn"))):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def vocabulary(writer) -> None:  # type: ignore[no-untyped-def]
    """Add a SentencePiece vocabulary: unk, bos, eos, the bytes, then made-up words."""
    import gguf

    kinds = gguf.TokenType
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256]
    words = [f"▁w{i:x}" for i in range(WORDS - len(tokens))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens + words)
    writer.add_token_scores([-float(i) for i in range(WORDS)])
    writer.add_token_types([*types, *[kinds.NORMAL] * len(words)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def quantize(source: Path, target: Path) -> None:
    """Quantize a GGUF file to Q4_K_M with llama.cpp."""
    from vigtui.backends.llama_native import bindings

    native = bindings()
    params = native.llama_model_quantize_default_params()
    params.ftype, params.nthread = 15, 4
    part = target.with_suffix(".part")
    if native.llama_model_quantize(str(source).encode(), str(part).encode(), ctypes.byref(params)):
        raise SystemExit("llama.cpp could not quantize the random model")
    part.rename(target)
