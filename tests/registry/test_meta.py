"""Meta's checkpoints ↔ Hugging Face folders: the same bits there and back, and the same logits."""

import errno
import hashlib
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from vigtui.core.errors import CapacityError, FormatError, UsageError
from vigtui.registry.convert import meta, model, parallel, params, safetensors, shards, torchzip, weights
from vigtui.registry.sniff import sniff

from .. import tiny

torch = pytest.importorskip("torch")
torch.set_num_threads(1)
HIDDEN, LAYERS, HEADS, INNER, WORDS = 64, 2, 4, 192, 420
PARAMS = {"dim": HIDDEN, "multiple_of": 32, "n_heads": HEADS, "n_layers": LAYERS, "norm_eps": 1e-6, "vocab_size": -1}
ROWS = ("wq", "wk", "wv", "w1", "w3", "output")
COLUMNS = ("wo", "w2", "tok_embeddings")
WORDED = ("model.embed_tokens.weight", "lm_head.weight")
State = dict[str, "torch.Tensor"]


def state(kv_heads: int = HEADS, dtype: "torch.dtype" = torch.float16, seed: int = 0, inner: int = INNER) -> State:
    """Random weights by Meta's names."""
    torch.manual_seed(seed)
    kv = kv_heads * HIDDEN // HEADS
    shapes = {"tok_embeddings": (WORDS, HIDDEN), "norm": (HIDDEN,), "output": (WORDS, HIDDEN)}
    for n in range(LAYERS):
        at = f"layers.{n}."
        shapes |= {f"{at}attention.wq": (HIDDEN, HIDDEN), f"{at}attention.wk": (kv, HIDDEN)}
        shapes |= {f"{at}attention.wv": (kv, HIDDEN), f"{at}attention.wo": (HIDDEN, HIDDEN)}
        shapes |= {f"{at}feed_forward.w1": (inner, HIDDEN), f"{at}feed_forward.w3": (inner, HIDDEN)}
        shapes |= {f"{at}feed_forward.w2": (HIDDEN, inner)}
        shapes |= {f"{at}attention_norm": (HIDDEN,), f"{at}ffn_norm": (HIDDEN,)}
    return {
        f"{name}.weight": ((torch.randn(shape) * 0.2) + (len(shape) == 1)).to(dtype) for name, shape in shapes.items()
    }


def cut(weights: State, count: int, embedding_axis: int = 1) -> list[State]:
    """Share the weights between `count` files as fairscale's parallel layers do."""
    files: list[State] = [{} for _n in range(count)]
    for name, tensor in weights.items():
        last = name.split(".")[-2]
        axis = 0 if last in ROWS else 1 if last in COLUMNS else None
        axis = embedding_axis if last == "tok_embeddings" else axis
        for file, part in zip(files, [tensor] * count if axis is None else tensor.chunk(count, axis), strict=True):
            file[name] = part.clone()
    return files


def checkpoint(path: Path, files: list[State], **changes: object) -> Path:
    """Write the folder as Meta did, with the frequencies of 2023 that belong to no weight."""
    path.mkdir(parents=True)
    for n, file in enumerate(files):
        extra = {"rope.freqs": torch.ones(8), "layers.0.attention.inner_attention.rope.freqs": torch.ones(8)}
        torch.save({**file, **extra}, path / f"consolidated.{n:02}.pth")
    (path / "params.json").write_text(json.dumps({**PARAMS, **changes}))
    (path.parent / "tokenizer.model").write_bytes(tiny.sentencepiece_model())
    return path


def read(path: Path) -> list[State]:
    files = sorted(path.glob("consolidated.*.pth"))
    return [torch.load(file, weights_only=True) for file in files]


def same(ours: State, theirs: State) -> bool:
    return ours.keys() == theirs.keys() and all(
        one.dtype == theirs[name].dtype and torch.equal(one, theirs[name]) for name, one in ours.items()
    )


def forward(weights: State, tokens: list[int], kv_heads: int = HEADS) -> "torch.Tensor":
    """Logits (n, words) as Meta's model.py computes them, rope turning neighbouring pairs as complex numbers."""
    w = {name.removesuffix(".weight"): tensor.double() for name, tensor in weights.items()}
    head, n = HIDDEN // HEADS, len(tokens)
    frequencies = 1.0 / 10000.0 ** (torch.arange(0, head, 2).double() / head)
    angles = torch.outer(torch.arange(n).double(), frequencies)
    turns = torch.polar(torch.ones_like(angles), angles)[:, None]

    def norm(x, name):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * w[name]

    def turned(x):
        return torch.view_as_real(torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)) * turns).flatten(2)

    x = w["tok_embeddings"][tokens]
    for layer in range(LAYERS):
        at = f"layers.{layer}."
        h = norm(x, at + "attention_norm")
        q = turned((h @ w[at + "attention.wq"].T).view(n, HEADS, head))
        k = turned((h @ w[at + "attention.wk"].T).view(n, kv_heads, head)).repeat_interleave(HEADS // kv_heads, 1)
        v = (h @ w[at + "attention.wv"].T).view(n, kv_heads, head).repeat_interleave(HEADS // kv_heads, 1)
        scores = torch.einsum("qhd,khd->hqk", q, k) / head**0.5
        scores = scores.masked_fill(torch.ones(n, n).triu(1).bool(), float("-inf")).softmax(-1)
        x = x + torch.einsum("hqk,khd->qhd", scores, v).reshape(n, HIDDEN) @ w[at + "attention.wo"].T
        h = norm(x, at + "ffn_norm")
        gate = torch.nn.functional.silu(h @ w[at + "feed_forward.w1"].T) * (h @ w[at + "feed_forward.w3"].T)
        x = x + gate @ w[at + "feed_forward.w2"].T
    return norm(x, "norm") @ w["output"].T


@pytest.mark.parametrize("kv_heads", [4, 2], ids=["all-heads", "grouped"])
@pytest.mark.parametrize("count", [1, 2])
def test_there_and_back_is_the_same_bits(tmp_path: Path, count: int, kv_heads: int) -> None:
    dtype = torch.bfloat16 if kv_heads == 2 else torch.float16
    files = cut(state(kv_heads, dtype), count)
    source = checkpoint(tmp_path / "7B", files, **({"n_kv_heads": 2} if kv_heads == 2 else {}))
    meta.to_hf(source, tmp_path / "hf")
    assert meta.from_hf(tmp_path / "hf", tmp_path / "pth", files=count) == ()
    found = read(tmp_path / "pth")
    assert len(found) == count and all(same(one, other) for one, other in zip(found, files, strict=True))
    assert (tmp_path / "pth" / "tokenizer.model").read_bytes() == tiny.sentencepiece_model()
    stated = json.loads((tmp_path / "pth" / "params.json").read_text())
    assert stated["vocab_size"] == WORDS and width(stated) == INNER
    assert {**stated, "vocab_size": -1, "multiple_of": 32} == json.loads((source / "params.json").read_text())


def width(stated: Mapping[str, float]) -> int:
    """The feed-forward width as Meta's code computes it from params.json."""
    hidden = int(2 * 4 * stated["dim"] / 3)
    hidden = int(stated.get("ffn_dim_multiplier", 1) * hidden)
    return int(stated["multiple_of"] * ((hidden + stated["multiple_of"] - 1) // stated["multiple_of"]))


@pytest.mark.parametrize(
    ("hidden", "inner"),
    [(4096, 11008), (5120, 13824), (6656, 17920), (8192, 22016), (8192, 28672), (4096, 14336), (64, 96), (64, 1000)],
)
def test_params_give_every_width(tmp_path: Path, hidden: int, inner: int) -> None:
    params.write(tmp_path / "params.json", params.Sizes(hidden, 2, 32, 8, 1e-5, 10000.0, inner, 32000))
    assert width(json.loads((tmp_path / "params.json").read_text())) == inner


@pytest.mark.parametrize("kv_heads", [4, 2], ids=["all-heads", "grouped"])
def test_transformers_computes_what_meta_computes(tmp_path: Path, kv_heads: int) -> None:
    transformers = pytest.importorskip("transformers")
    weights = state(kv_heads, torch.float32)
    source = checkpoint(tmp_path / "7B", cut(weights, 2), **({"n_kv_heads": 2} if kv_heads == 2 else {}))
    meta.to_hf(source, tmp_path / "hf")
    model = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)
    tokens = [1, 300, 17, 260, 399, 5, 42, 260, 3, 250]
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0]
    reference = forward(weights, tokens, kv_heads)
    assert tiny.divergence(logits.numpy(), reference.numpy()) < 1e-8
    assert (logits - reference).abs().max() < 1e-3


def test_the_tokenizer_is_that_of_the_checkpoint(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    import sentencepiece

    source = checkpoint(tmp_path / "7B", [state()])
    (notice,) = meta.to_hf(source, tmp_path / "hf")
    assert "2048" in notice and meta.to_hf(source, tmp_path / "longer", context=8192) == ()
    assert json.loads((tmp_path / "longer" / "config.json").read_text())["max_position_embeddings"] == 8192
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    reference = sentencepiece.SentencePieceProcessor(model_proto=tiny.sentencepiece_model())
    for text in filter(lambda text: not text.startswith(" "), tiny.TEXTS):  # transformers drops the added space there
        assert words.encode(text) == [1, *reference.encode(text)], text
    assert (words.bos_token_id, words.eos_token_id) == (1, 2)


def test_embeddings_shared_by_rows_as_in_llama_3(tmp_path: Path) -> None:
    plain = state()
    meta.to_hf(checkpoint(tmp_path / "a" / "7B", cut(plain, 2, embedding_axis=0)), tmp_path / "hf")
    meta.from_hf(tmp_path / "hf", tmp_path / "pth", files=1)
    assert same(read(tmp_path / "pth")[0], plain)


def test_a_hugging_face_model_of_its_own(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = tiny.folder(
        tmp_path / "hf", tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 1e4}
    )
    meta.from_hf(folder, tmp_path / "pth")
    (found,) = read(tmp_path / "pth")
    assert torch.equal(found["output.weight"], found["tok_embeddings.weight"])
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokens = [1, 300, 17, 260]
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0]
    assert tiny.divergence(forward(found, tokens, 2).numpy(), logits.numpy()) < 1e-5


def test_the_usual_number_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two for a hidden size of 5120, and one where the weights do not divide."""
    shape = {"hidden_size": 5120, "num_attention_heads": 40, "num_key_value_heads": 2, "num_hidden_layers": 1}
    folder = tiny.folder(tmp_path / "13B", tensors={}, intermediate_size=2, vocab_size=4, head_dim=128, **shape)
    described = tiny.config(intermediate_size=2, vocab_size=4, head_dim=128, **shape)
    thin = {name: w.astype(np.float16) for name, w in tiny.weights(described).items()}
    save_file(thin, folder / "model.safetensors")
    assert meta.from_hf(folder, tmp_path / "two") == () and len(read(tmp_path / "two")) == 2
    save_file(
        {**thin, **{name: np.vstack([thin[name], thin[name][:1]]) for name in WORDED}}, folder / "model.safetensors"
    )
    (notice,) = meta.from_hf(folder, tmp_path / "one")
    assert "2" in notice and len(read(tmp_path / "one")) == 1
    with pytest.raises(UsageError):
        meta.from_hf(folder, tmp_path / "three", files=2)


def test_shards_and_their_index(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "7B", [state()])
    meta.to_hf(source, tmp_path / "hf")
    tensors = weights.index(tmp_path / "hf")

    def pieces(tensor: safetensors.Tensor):
        with tensor.path.open("rb") as file:
            file.seek(tensor.begin)
            yield file.read(tensor.end - tensor.begin)

    outputs = [shards.Written(t.name, t.dtype, t.shape, partial(pieces, t)) for t in tensors.values()]
    (tmp_path / "cut").mkdir()
    shards.safetensors(tmp_path / "cut", outputs, lambda: None, limit=100_000)
    assert len(list((tmp_path / "cut").glob("model-*.safetensors"))) > 2
    found = weights.index(tmp_path / "cut")
    assert found.keys() == tensors.keys()
    assert all(next(pieces(found[name])) == next(pieces(tensors[name])) for name in tensors)


def test_the_archive_can_be_mapped(tmp_path: Path) -> None:
    meta.to_hf(checkpoint(tmp_path / "7B", [state()]), tmp_path / "hf")
    meta.from_hf(tmp_path / "hf", tmp_path / "pth")
    path = tmp_path / "pth" / "consolidated.00.pth"
    assert same(torch.load(path, weights_only=True, mmap=True), state())
    assert all(tensor.begin % 64 == 0 for tensor in torchzip.tensors(path).values())


def refused(source: Path, *words: str, back: bool = False) -> None:
    with pytest.raises(FormatError) as caught:
        (meta.from_hf if back else meta.to_hf)(source, source.parent / "out")
    assert all(word in caught.value.message for word in words), caught.value.message
    assert caught.value.hint
    assert not (source.parent / "out").exists() and not list(source.parent.glob(".out*"))


def test_a_checklist_is_believed(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "7B", [state()])
    names = ("consolidated.00.pth", "params.json")
    sums = [f"{hashlib.md5((source / name).read_bytes()).hexdigest()}  {name}" for name in names]
    (source / "checklist.chk").write_text("\n".join(sums) + "\n")
    meta.to_hf(source, tmp_path / "hf")
    (source / "params.json").write_text(json.dumps({**PARAMS, "norm_eps": 1e-5}))
    refused(source, "params.json", "md5")
    (source / "checklist.chk").write_text("\n".join(sums) + f"\n{'0' * 32}  consolidated.01.pth\n")
    (source / "params.json").write_text(json.dumps(PARAMS))
    refused(source, "consolidated.01.pth")


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    first, second = cut(state(), 2)
    refused(checkpoint(tmp_path / "a" / "7B", [first]), "tok_embeddings.weight", "(420, 64)")
    refused(checkpoint(tmp_path / "b" / "7B", [first, cut(state(seed=1), 2)[1]]), "norm.weight")
    refused(
        checkpoint(tmp_path / "c" / "7B", [first, {**second, "output.weight": second["output.weight"].float()}]), "F32"
    )
    refused(checkpoint(tmp_path / "d" / "7B", [{**state(), "layers.0.gate.weight": torch.ones(2)}]), "layers.0.gate")
    lacking = checkpoint(tmp_path / "e" / "7B", cut(state(), 2))
    (lacking / "consolidated.00.pth").unlink()
    refused(lacking, "consolidated.00.pth")
    refused(
        checkpoint(tmp_path / "f" / "7B", [{n: w for n, w in state().items() if n != "norm.weight"}]), "norm.weight"
    )
    refused(checkpoint(tmp_path / "g" / "7B", [{n: w.int() for n, w in state().items()}]), "I32")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"dim": 0}, "dim"),
        ({"dim": 10**9}, "dim"),
        ({"dim": "64"}, "dim"),
        ({"n_heads": 3}, "heads"),
        ({"n_layers": 600}, "layers"),
        ({"n_layers": 3}, "layers.2."),
        ({"n_layers": 1}, "layers.1."),
        ({"norm_eps": 0}, "norm_eps"),
        ({"moe": {"num_experts": 8}}, "moe"),
    ],
)
def test_params_that_lie(tmp_path: Path, changes: dict, word: str) -> None:
    refused(checkpoint(tmp_path / "7B", [state()], **changes), word)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "7B", [state()])
    (tmp_path / "tokenizer.model").rename(tmp_path / "away")
    refused(source, "tokenizer.model")
    (tmp_path / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 1\n")
    refused(source, "tokenizer.model", "Llama 3")
    (tmp_path / "away").rename(tmp_path / "tokenizer.model")
    (source / "params.json").unlink()
    refused(source, "params.json")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"model_type": "mistral"}, "mistral"),
        ({"attention_bias": True}, "attention_bias"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling"),
        ({"head_dim": 32}, "head_dim"),
        ({"intermediate_size": 96, "num_hidden_layers": 3}, "model.layers.2."),
        ({"num_hidden_layers": 1}, "model.layers.1."),
    ],
)
def test_what_meta_cannot_express(tmp_path: Path, changes: dict, word: str) -> None:
    refused(tiny.folder(tmp_path / "hf", tiny.weights(tiny.config()), **changes), word, back=True)


def test_a_name_that_is_taken(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "7B", [state()])
    (tmp_path / "hf").mkdir()
    meta.to_hf(source, tmp_path / "hf")
    before = {path: path.read_bytes() for path in (tmp_path / "hf").iterdir()}
    with pytest.raises(UsageError):
        meta.to_hf(source, tmp_path / "hf")
    with pytest.raises(UsageError):
        meta.to_hf(source, source)
    assert before == {path: path.read_bytes() for path in (tmp_path / "hf").iterdir()}


def test_a_killed_conversion_leaves_nothing_half_made(tmp_path: Path) -> None:
    source, target = checkpoint(tmp_path / "7B", [state()]), tmp_path / "hf"
    code = (
        "import os, pathlib, sys; from vigtui.registry.convert import meta;"
        "meta.to_hf(*map(pathlib.Path, sys.argv[1:]),"
        " progress=lambda _stage, done, _total: done == 10 and os.kill(os.getpid(), 9))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(source), str(target)], check=False).returncode == -9
    assert not target.exists()
    meta.to_hf(source, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["7B", "hf", "tokenizer.model"]


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = checkpoint(tmp_path / "7B", [state()])

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CapacityError):
        meta.to_hf(source, tmp_path / "hf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["7B", "tokenizer.model"]


def test_memory_does_not_grow_with_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = checkpoint(tmp_path / "7B", cut(state(inner=100_000), 2))
    monkeypatch.setattr(parallel, "LIMIT", 1 << 20)
    meta.to_hf(source, tmp_path / "warm")
    tracemalloc.start()

    def started(_stage: str, done: int, _total: int) -> None:
        if not done:  # the tokenizer takes what it takes
            tracemalloc.reset_peak()

    meta.to_hf(source, tmp_path / "hf", started)
    assert tracemalloc.get_traced_memory()[1] < 12 << 20
    tracemalloc.reset_peak()
    meta.from_hf(tmp_path / "hf", tmp_path / "pth", files=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(path.stat().st_size for path in source.iterdir()) > 70 << 20
    assert peak < 12 << 20, peak


def test_a_checkpoint_becomes_gguf(tmp_path: Path) -> None:
    """By way of the Hugging Face folder, as `vigtui convert` does it."""
    source = checkpoint(tmp_path / "7B", cut(state(dtype=torch.float32), 2))
    found = sniff(source)
    assert (found.kind, found.detail, len(found.files)) == ("meta", "", 2)
    meta.to_hf(source, tmp_path / "hf")
    assert (sniff(tmp_path / "hf").kind, sniff(tmp_path / "hf").notices) == ("safetensors", ())
    model.convert(tmp_path / "hf", tmp_path / "a.gguf", "f32")
    tokens = [1, 300, 17, 260]
    with tiny.load(tmp_path / "a.gguf") as loaded:
        reference = forward(state(dtype=torch.float32), tokens).numpy()
        assert tiny.divergence(loaded.logits(tokens), reference) < 1e-8
