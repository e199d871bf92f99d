import json
import shutil
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from vigtui.backends.base import ModelFiles
from vigtui.core.errors import FormatError, UsageError
from vigtui.registry.convert.model import convert
from vigtui.registry.detail import detail
from vigtui.registry.record import Record, read, write
from vigtui.registry.workshop import quality
from vigtui.registry.workshop.quality import measure
from vigtui.registry.workshop.quantize import quantize
from vigtui.registry.workshop.report import Report, Score, table
from vigtui.tui.cli.listing import lines

from .. import tiny
from .forms import HF, MARIN, TEXT, copy_keys, finish, spoilt
from .forms import f16 as f16
from .forms import f32 as f32
from .forms import small as small

TEXTS = {"fr": TEXT[:1200], "en": TEXT[300:900]}


def compare(product: Path, reference: Path, texts: dict[str, str] = TEXTS, **options: object) -> Report:
    models = (ModelFiles(path.stem, "gguf", path) for path in (product, reference))
    product_files, reference_files = models
    return measure(product_files, "llama.cpp", reference_files, "llama.cpp", texts, threads=1, **options)


def test_a_model_is_equal_to_itself(f32: Path) -> None:
    report = compare(f32, f32)
    for score in report.scores.values():
        assert score.perplexity == score.reference
        assert score.divergence is not None and score.divergence < 1e-6
        assert score.agreement == 1
    assert report.size == report.reference_size == f32.stat().st_size
    assert report.speed and report.speed > 0
    assert report.garbage is None


def test_fewer_bits_diverge_more(f16: Path, f32: Path, tmp_path: Path) -> None:
    found = []
    for name in ("Q8_0", "Q4_K_M", "Q2_K"):
        quantize(f16, tmp_path / f"{name}.gguf", name, threads=1)
        found.append(compare(tmp_path / f"{name}.gguf", f32))
    for language in TEXTS:
        divergences = [report.scores[language].divergence for report in found]
        agreements = [report.scores[language].agreement for report in found]
        assert divergences == sorted(divergences) and divergences[0] > 1e-5
        assert agreements == sorted(agreements, reverse=True)
    sizes = [report.size / report.reference_size for report in found]
    assert sizes == sorted(sizes, reverse=True)
    assert [report.garbage for report in found] == [None] * 3


def test_the_numbers_are_those_of_an_independent_computation(small: Path, tmp_path: Path) -> None:
    other = tiny.write_gguf(tmp_path / "other.gguf", seed=9)
    with tiny.load(small) as model:
        tokens = [1, *model.tokenize(TEXTS["fr"])]
    assert len(tokens) <= quality.WINDOW
    theirs, ours = (logits(path.with_suffix(".hf"), tokens) for path in (small, other))
    score = compare(other, small, {"fr": TEXTS["fr"]}).scores["fr"]
    assert score.tokens == len(tokens) - 1
    assert score.perplexity == pytest.approx(perplexity(ours, tokens), rel=1e-2)
    assert score.reference == pytest.approx(perplexity(theirs, tokens), rel=1e-2)
    assert score.divergence == pytest.approx(tiny.divergence(ours[:-1], theirs[:-1]), rel=1e-2)
    same = (ours[:-1].argmax(1) == theirs[:-1].argmax(1)).mean()
    assert score.agreement == pytest.approx(same, abs=0.02)


def logits(folder: Path, tokens: list[int]) -> np.ndarray:
    config = json.loads((folder / "config.json").read_text())
    return tiny.forward(load_file(folder / "model.safetensors"), config, tokens)


def perplexity(logits: np.ndarray, tokens: list[int]) -> float:
    top = logits.max(1, keepdims=True)
    logs = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
    return float(np.exp(-logs[np.arange(len(tokens) - 1), tokens[1:]].mean()))


def test_shuffled_weights_are_garbage(f16: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    folder = shutil.copytree(HF, tmp_path / "shuffled")
    weights = load_file(HF / "model.safetensors")
    shuffled = {name: random.permutation(one.ravel()).reshape(one.shape) for name, one in weights.items()}
    save_file(shuffled, folder / "model.safetensors")
    convert(folder, tmp_path / "shuffled.gguf", "f16")
    report = compare(tmp_path / "shuffled.gguf", f16)
    assert report.garbage and "shuffled agrees with its reference on 0." in report.garbage


def test_a_product_that_computes_no_numbers_is_garbage(small: Path, tmp_path: Path) -> None:
    broken = spoilt(small, tmp_path / "broken.gguf", "blk.1.ffn_up.weight", float("nan"))
    report = compare(broken, small)
    assert report.garbage == "broken computes values that are no numbers."
    assert report.speed is None
    values = json.loads(json.dumps(report.values(), allow_nan=False))
    assert Report.from_values(values).garbage == report.garbage == values["garbage"]


def test_a_reference_that_computes_no_numbers_is_refused(small: Path, tmp_path: Path) -> None:
    broken = spoilt(small, tmp_path / "broken.gguf", "blk.1.ffn_up.weight", float("nan"))
    with pytest.raises(FormatError, match="reference broken"):
        compare(small, broken)


def test_garbage_is_three_times_the_perplexity() -> None:
    def report(perplexity: float) -> Report:
        scores = {"fr": Score(10, 20.0, 20.0, 0.1, 0.9), "en": Score(10, 20.0, perplexity, 0.1, 0.9)}
        return Report("p", "r", "llama.cpp", "llama.cpp", scores, 1, 2, 3.0)

    assert report(59.9).garbage is None
    assert report(60.1).garbage == "p has a perplexity of 60.1 on the text in en; its reference has 20."


def test_an_adapter_applies_to_the_reference(f16: Path) -> None:
    text = {"fr": TEXTS["fr"][:300]}
    plain = compare(f16, f16, text, adapters=[(MARIN, 0.0)]).scores["fr"]
    adapted = compare(f16, f16, text, adapters=[(MARIN, 1.0)]).scores["fr"]
    assert plain.divergence is not None and plain.divergence < 1e-5
    assert adapted.divergence is not None and adapted.divergence > 0.1
    assert adapted.perplexity == plain.perplexity != adapted.reference


def test_other_tokens_cannot_be_compared(f16: Path, small: Path) -> None:
    with pytest.raises(FormatError, match="different tokens"):
        compare(small, f16)


def test_one_token_more_is_no_other_vocabulary(small: Path, tmp_path: Path) -> None:
    padded = pad(small, tmp_path / "padded.gguf")
    for product, reference in ((padded, small), (small, padded)):
        score = compare(product, reference, {"fr": TEXTS["fr"]}).scores["fr"]
        assert score.divergence is not None and score.divergence < 1e-5


def pad(source: Path, target: Path) -> Path:
    """Copy `source` with one token more at the end, which nothing predicts."""
    reader, writer = gguf.GGUFReader(source), gguf.GGUFWriter(target, "llama")
    copy_keys(reader, writer)
    for key, extra in (("tokens", "[PAD]"), ("scores", -1000.0), ("token_type", 4)):
        held = writer.kv_data[0][f"tokenizer.ggml.{key}"]
        held.value = [*held.value, extra]
    writer.kv_data[0]["llama.vocab_size"].value += 1
    for tensor in reader.tensors:
        data = np.array(tensor.data)
        wide = tensor.name in ("token_embd.weight", "output.weight")
        writer.add_tensor(tensor.name, np.vstack([data, data[:1]]) if wide else data)
    return finish(writer, target)


def test_as_many_tokens_are_read_as_wanted(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}

    def progress(stage: str, done: int, total: int) -> None:
        seen.setdefault(stage, []).append((done, total))

    report = compare(small, small, tokens=100, progress=progress)
    assert [score.tokens for score in report.scores.values()] == [100, 100]
    assert seen["read with the reference"][-1] == seen["read with the product"][-1] == (200, 200)
    monkeypatch.setattr(quality, "DISK", 2 * 512 * 150)  # the vocabulary has 512 tokens at most
    assert 64 <= compare(small, small).scores["fr"].tokens < 100


def test_texts_longer_than_a_window_are_read(small: Path) -> None:
    report = compare(small, small, {"fr": TEXT * 2})
    assert report.scores["fr"].tokens > quality.WINDOW
    assert report.scores["fr"].agreement == 1


def test_nothing_to_read_is_refused(small: Path) -> None:
    for texts in ({}, {"fr": ""}):
        with pytest.raises(UsageError, match="no text"):
            compare(small, small, texts)


REPORT = Report(
    "p", "r", "llama.cpp", "transformers",
    {"fr": Score(2048, 10.0, 10.5, 0.0123, 0.95), "en": Score(2000, 12.0, 12.25, 0.01, 0.9)}, 25, 100, 1234.5,
)  # fmt: skip


def test_a_report_comes_back_from_json() -> None:
    values = json.loads(json.dumps(REPORT.values(), allow_nan=False))
    assert Report.from_values(values) == REPORT
    assert values["texts"]["en"]["kl_divergence"] == 0.01
    assert values["garbage"] is None


@pytest.mark.parametrize(
    "change", [{"size": "25"}, {"texts": []}, {"texts": {"fr": {}}}, {"product": None}, {"tokens_per_s": True}]
)
def test_a_damaged_report_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(FormatError, match="damaged"):
        Report.from_values({**REPORT.values(), **change})
    with pytest.raises(FormatError, match="damaged"):
        Report.from_values(None)


def test_the_table_is_for_people() -> None:
    rows = table(REPORT)
    assert {len(row) for row in rows} == {3}
    assert [row for row in rows if row[0] in ("perplexity", "KL divergence", "same first choice")] == [
        ("perplexity", "10.5", "12.2"),
        ("KL divergence", "0.0123 nats", "0.0100 nats"),
        ("same first choice", "95.0 %", "90.0 %"),
    ]
    assert rows[-2:] == [("size beside the reference", "25.0 %", ""), ("speed", "1234 tokens/s", "")]
    broken = replace(REPORT, scores={"fr": Score(10, 10.0)}, speed=None)
    assert ("perplexity", "–") in table(broken) and ("speed", "–") in table(broken)


def test_a_record_shows_its_report(tmp_path: Path) -> None:
    write(tmp_path / "it.json", Record("it", "gguf", made_with={"type": "Q4_K_M", "report": REPORT.values()}))
    known = detail(read(tmp_path / "it.json"))
    assert known.report == REPORT
    told = dict(lines(known))
    assert told["perplexity"] == "10.5 (fr), 12.2 (en)"
    assert told["speed"] == "1234 tokens/s"
    assert told["made with"] == "type Q4_K_M"
    assert detail(Record("it", "gguf", made_with={"report": {"size": 1}})).report is None
