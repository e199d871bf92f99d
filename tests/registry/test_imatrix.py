import json
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file
from vigtui.core.errors import FormatError, UsageError
from vigtui.registry.sniff import sniff
from vigtui.registry.workshop import imatrix
from vigtui.registry.workshop.activation import weight_name
from vigtui.registry.workshop.imatrix import Sums
from vigtui.registry.workshop.quantize import quantize

from .. import tiny
from .forms import HF, TEXT, experts, spoilt
from .forms import f16 as f16
from .forms import small as small

PLACES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip


class Weight(np.ndarray):
    """A matrix that keeps the mean squares of what it is multiplied with."""

    def __array_finalize__(self, origin: object) -> None:
        self.seen = getattr(origin, "seen", None)

    def __rmatmul__(self, rows: np.ndarray) -> np.ndarray:
        self.seen.append((rows**2).mean(0))
        return rows @ np.asarray(self)


def spied(array: np.ndarray) -> Weight:
    weight = array.view(Weight)
    weight.seen = []
    return weight


@pytest.fixture(scope="module")
def matrix(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("matrix") / "small.imatrix.gguf"
    assert imatrix.compute(small, TEXT, target, threads=1) == 1
    return target


def test_the_sums_are_those_of_an_independent_computation(small: Path, matrix: Path) -> None:
    folder = small.with_suffix(".hf")
    config = json.loads((folder / "config.json").read_text())
    tensors = {n: spied(w) if "proj" in n else w for n, w in load_file(folder / "model.safetensors").items()}
    with tiny.load(small) as model:
        tokens = [1, *model.tokenize(TEXT)]
    assert len(tokens) <= 512
    tiny.forward(tensors, config, tokens)
    found = imatrix.read(matrix)
    assert len(found) == 14
    for layer in range(2):
        for theirs, ours in PLACES.items():
            [expected] = tensors[f"model.layers.{layer}.{theirs}.weight"].seen
            np.testing.assert_allclose(found[f"blk.{layer}.{ours}.weight"], expected, rtol=1e-2)
    assert {float(sums.counts[0]) for sums in imatrix.load(matrix).values()} == {float(len(tokens))}


def test_a_long_text_is_read_in_whole_chunks(small: Path, tmp_path: Path) -> None:
    stages: list[tuple[int, int]] = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "importance matrix":
            stages.append((done, total))

    target = tmp_path / "it.gguf"
    assert imatrix.compute(small, TEXT * 4, target, threads=1, progress=progress, name="fr") == 3
    assert stages == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert imatrix.load(target)["blk.1.ffn_down.weight"].counts == [1536]
    fields = gguf.GGUFReader(target).fields
    assert {key: fields[f"imatrix.{key}"].contents() for key in ("datasets", "chunk_count", "chunk_size")} == {
        "datasets": ["fr"], "chunk_count": 3, "chunk_size": 512,
    }  # fmt: skip
    assert sniff(target).kind == "imatrix"


def test_a_short_context_makes_short_chunks(tmp_path: Path) -> None:
    model = tiny.write_gguf(tmp_path / "short.gguf", context=128)
    chunks = imatrix.compute(model, TEXT, tmp_path / "it.gguf", threads=1)
    assert chunks > 1
    assert imatrix.load(tmp_path / "it.gguf")["blk.0.attn_q.weight"].counts == [chunks * 128]


def test_few_bits_work_with_a_matrix(f16: Path, tmp_path: Path) -> None:
    imatrix.compute(f16, TEXT, tmp_path / "it.imatrix", threads=1)
    quantize(f16, tmp_path / "it.gguf", "IQ2_XXS", threads=1, imatrix=tmp_path / "it.imatrix")
    quantize(f16, tmp_path / "other.gguf", "Q4_K_M", threads=1, imatrix=tmp_path / "it.imatrix")
    quantize(f16, tmp_path / "plain.gguf", "Q4_K_M", threads=1)
    assert sniff(tmp_path / "it.gguf").quantization == "IQ2_XXS"
    assert (tmp_path / "other.gguf").read_bytes() != (tmp_path / "plain.gguf").read_bytes()
    with tiny.load(tmp_path / "it.gguf") as model:
        assert np.isfinite(model.logits([1, 40, 41])).all()


def test_experts_are_counted_one_by_one(tmp_path: Path) -> None:
    model = experts(tiny.write_gguf(tmp_path / "dense.gguf", width=256, ffn=256), tmp_path / "many.gguf")
    imatrix.compute(model, TEXT, tmp_path / "it.imatrix", threads=1)
    found = imatrix.load(tmp_path / "it.imatrix")
    chosen, tokens = found["blk.0.ffn_up_exps.weight"], found["blk.0.ffn_gate_inp.weight"]
    assert chosen.squares.shape == (4, 256) and len(set(chosen.counts)) > 1
    assert chosen.counts.sum() == 2 * tokens.counts[0]  # each token goes to two experts
    np.testing.assert_allclose(chosen.squares.sum(0), 2 * tokens.squares[0], rtol=1e-4)
    quantize(model, tmp_path / "it.gguf", "IQ2_XXS", threads=1, imatrix=tmp_path / "it.imatrix")
    assert sniff(tmp_path / "it.gguf").quantization == "IQ2_XXS"


def test_both_forms_say_the_same(small: Path, matrix: Path, tmp_path: Path) -> None:
    sums = imatrix.load(matrix)
    imatrix.write(tmp_path / "again.gguf", sums, 1, 512, "text")
    legacy(tmp_path / "old.dat", {name: one.squares[0] / one.counts[0] for name, one in sums.items()}, calls=4)
    for path in (tmp_path / "again.gguf", tmp_path / "old.dat"):
        found = imatrix.read(path)
        assert list(found) == list(sums)
        for name, values in imatrix.read(matrix).items():
            np.testing.assert_allclose(found[name], values, rtol=1e-6)
        quantize(small, tmp_path / f"{path.stem}.q", "Q4_0", threads=1, imatrix=path)
    assert (tmp_path / "again.q").read_bytes() == (tmp_path / "old.q").read_bytes()


def legacy(path: Path, means: dict[str, np.ndarray], calls: int) -> Path:
    """Write the form of before July 2025: sums of chunks' means, then what a reader may leave."""
    data = struct.pack("<i", len(means))
    for name, values in means.items():
        data += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", calls, len(values))
        data += (values * calls).astype("<f4").tobytes()
    path.write_bytes(data + struct.pack("<ii", calls, 4) + b"text")
    return path


def test_an_expert_that_nothing_reached_counts_evenly(tmp_path: Path) -> None:
    sums = Sums(np.array([[8.0, 4.0], [0.0, 0.0]], np.float32), np.array([4.0, 0.0], np.float32))
    imatrix.write(tmp_path / "it.gguf", {"blk.0.ffn_up_exps.weight": sums}, 1, 4, "text")
    assert imatrix.read(tmp_path / "it.gguf")["blk.0.ffn_up_exps.weight"].tolist() == [2.0, 1.0, 1.0, 1.0]


def test_a_matrix_of_another_model_is_refused(f16: Path, matrix: Path, tmp_path: Path) -> None:
    other = {"blk.0.attn_k.weight": Sums(np.ones((1, 64), np.float32), np.ones(1, np.float32))}
    imatrix.write(tmp_path / "short.gguf", other, 1, 512, "text")
    strange = {"blk.0.strange.weight": Sums(np.ones((1, 256), np.float32), np.ones(1, np.float32))}
    imatrix.write(tmp_path / "strange.gguf", strange, 1, 512, "text")
    for path in (matrix, tmp_path / "short.gguf", tmp_path / "strange.gguf"):
        with pytest.raises(FormatError, match="another model"):
            quantize(f16, tmp_path / "it.gguf", "IQ2_XXS", threads=1, imatrix=path)
    assert not (tmp_path / "it.gguf").exists()


def test_a_tensor_without_values_is_named(small: Path, f16: Path, tmp_path: Path) -> None:
    one = {"blk.0.attn_q.weight": Sums(np.ones((1, 256), np.float32), np.ones(1, np.float32))}
    imatrix.write(tmp_path / "one.gguf", one, 1, 512, "text")
    with pytest.raises(FormatError, match=r"blk\.0\.attn_k\.weight"):
        quantize(f16, tmp_path / "it.gguf", "IQ2_XXS", threads=1, imatrix=tmp_path / "one.gguf")
    assert not (tmp_path / "it.gguf").exists()


def values(*numbers: float, counts: float = 1.0) -> dict[str, Sums]:
    return {"blk.0.attn_q.weight": Sums(np.array([numbers], np.float32), np.array([counts], np.float32))}


@pytest.mark.parametrize(
    "sums",
    [
        values(1.0, float("nan")), values(1.0, float("inf")), values(1.0, -1.0), values(1.0, 3e38),
        values(1.0, counts=-1.0), values(1.0, counts=float("nan")), {},
    ],
    ids=["nan", "infinite", "negative", "overflowing", "negative count", "no count", "empty"],
)  # fmt: skip
def test_values_that_no_model_computes_are_refused(sums: dict[str, Sums], tmp_path: Path) -> None:
    imatrix.write(tmp_path / "it.gguf", sums, 1, 512, "text")
    with pytest.raises(FormatError, match="no importance matrix, or a damaged one"):
        imatrix.read(tmp_path / "it.gguf")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"GG", b"\xff" * 64, b"<!doctype html><html></html>",
        struct.pack("<i", 2**31 - 1), struct.pack("<ii", 1, 2**31 - 1) + b"a" * 64, struct.pack("<ii", 1, -5),
        struct.pack("<ii4sii", 1, 4, b"blk.", 1, 2**31 - 1), struct.pack("<ii4sii", 1, 4, b"blk.", 0, 1) + b"\0" * 4,
        struct.pack("<ii4siif", 2, 4, b"blk.", 1, 1, 1.0),
    ],
)  # fmt: skip
def test_files_that_lie_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "it.dat").write_bytes(data)
    with pytest.raises(FormatError, match="no importance matrix, or a damaged one"):
        imatrix.read(tmp_path / "it.dat")


def test_a_file_cut_anywhere_is_refused(matrix: Path, tmp_path: Path) -> None:
    old = legacy(tmp_path / "old.dat", {name: v for name, v in imatrix.read(matrix).items() if "blk.0" in name}, 1)
    padding, tail = 32, 12  # of the one; of the other chunks and the text's name, which older files lack
    for path, end in ((matrix, padding), (old, tail)):
        whole = path.read_bytes()
        for length in range(0, len(whole) - end, max(1, len(whole) // 40)):
            (tmp_path / "cut").write_bytes(whole[:length])
            with pytest.raises(FormatError):
                imatrix.read(tmp_path / "cut")


def test_a_model_is_no_matrix_and_none_is_missing(small: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError):
        imatrix.read(small)
    with pytest.raises(FormatError, match="cannot be read"):
        imatrix.read(tmp_path / "none.gguf")


def test_what_cannot_be_computed_is_refused(small: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="tokens"):
        imatrix.compute(small, "Bon", tmp_path / "it.gguf", threads=1)
    with pytest.raises(FormatError, match="vigtui convert"):
        imatrix.compute(HF, TEXT, tmp_path / "it.gguf", threads=1)
    broken = spoilt(small, tmp_path / "nan.gguf", "blk.0.ffn_up.weight", float("nan"))
    with pytest.raises(FormatError, match="no numbers"):
        imatrix.compute(broken, TEXT, tmp_path / "it.gguf", threads=1)
    assert not (tmp_path / "it.gguf").exists()


def test_the_schedulers_marks_are_no_part_of_a_name() -> None:
    assert weight_name(b"CUDA0#blk.0.attn_k.weight#0") == weight_name(b"blk.0.attn_k.weight") == "blk.0.attn_k.weight"
