"""Models that the benchmarks need: the embedded one, and a random Llama of 1.1 billion parameters made on the spot."""

import ctypes
from pathlib import Path

from vigtui import assets

CACHE = Path(__file__).parent / ".cache"
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
