"""Hugging Face → GPTQ: what the product says and computes, who can load it, and what an interruption leaves."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vigtui import assets
from vigtui.assets.vigogneau import material, score
from vigtui.backends import gptq_layout
from vigtui.backends.base import Generation, LoadOptions, ModelFiles, Prompt, Text
from vigtui.core.errors import BackendError, FormatError, UsageError, VigtuiError
from vigtui.core.progress import silent
from vigtui.registry.convert import weights
from vigtui.registry.workshop import gptq, texts

from .. import tiny

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
GUIDE = assets.path("vigogneau/hf")
TOKENS = [1, 300, 17, 260, 399, 5, 42, 260, 3, 250]
CHILD = """
import sys
from pathlib import Path
from vigtui.registry.workshop import gptq, texts
gptq.PAUSE = gptq.SMALL = 0
source, target, work = map(Path, sys.argv[1:])
def say(stage, done, total):
    print(f"\\nLAYER {done}", flush=True)
gptq.quantize(source, target, group_size=32, texts=texts.calibration("en"), samples=4, work=work, progress=say)
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_llama(tmp_path_factory.mktemp("small") / "llama", layers=3, context=256, scale=0.15)


@pytest.fixture(scope="module")
def connections() -> list[Any]:
    return []


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory, connections: list[Any]) -> Iterator[Path]:
    """vigogneau in 4 bits with groups of 128."""
    folder = tmp_path_factory.mktemp("guide")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", lambda _socket, address: connections.append(address))
        make(GUIDE, folder / "gptq", folder / "work", group_size=128, samples=8)
    yield folder / "gptq"


def make(source: Path, target: Path, work: Path, **options: Any) -> tuple[str, ...]:
    given = {"group_size": 32, "samples": 4, "texts": texts.calibration("mixed"), **options}
    return gptq.quantize(source, target, work=work, **given)


def logits(folder: Path, tokens: list[int]) -> np.ndarray:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu").eval()
    with torch.inference_mode():
        return model(torch.tensor([tokens])).logits[0].float().numpy()


def scored(folder: Path) -> np.ndarray:
    """What our engine computes, which does not compile the kernels first."""
    from vigtui.backends.gptq import GptqBackend

    engine = GptqBackend()
    engine.load(ModelFiles("made", "gptq", folder), LoadOptions(device="cpu"), silent)
    found = np.stack(list(engine.score(TOKENS)))
    engine.close()
    return found


def answers(folder: Path, prompts: list[str]) -> list[str]:
    """What plain transformers answers, greedily, all at once."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    words = AutoTokenizer.from_pretrained(folder, padding_side="left", pad_token="</s>")
    model = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu", dtype=torch.float32).eval()
    given = words(prompts, return_tensors="pt", padding=True)
    greedy = GenerationConfig(max_new_tokens=48, do_sample=False, eos_token_id=2, pad_token_id=2)
    with torch.inference_mode():
        said = model.generate(**given, generation_config=greedy)
    return words.batch_decode(said[:, given["input_ids"].shape[1] :], skip_special_tokens=True)


def right(folder: Path) -> float:
    cases = [case for case in score.cases(1) if case.kind == "reworded"][::6]
    known = material.read("answers")
    said = answers(folder, [score.prompt(case.question) for case in cases])
    verdicts = [score.verdict(case, text, known) for case, text in zip(cases, said, strict=True)]
    return 100 * verdicts.count("right") / len(cases)


def test_the_guide_keeps_its_answers(guide: Path) -> None:
    reference = right(GUIDE)
    assert reference > 60
    assert right(guide) >= reference - 5


def test_nothing_was_asked_of_the_network(guide: Path, connections: list[Any]) -> None:
    assert guide.is_dir()
    assert not [address for address in connections if isinstance(address, tuple)]


def test_the_settings_stand_in_both_files(guide: Path) -> None:
    alone = json.loads((guide / "quantize_config.json").read_text())
    config = json.loads((guide / "config.json").read_text())
    assert config.pop("quantization_config") == alone
    assert config == json.loads((GUIDE / "config.json").read_text())
    wanted = {"bits": 4, "group_size": 128, "desc_act": False, "sym": True, "quant_method": "gptq"}
    assert wanted.items() <= alone.items() and alone["checkpoint_format"] == "gptq"
    assert str(guide.parent) not in json.dumps(alone)


def test_everything_but_the_linear_layers_is_the_sources(guide: Path) -> None:
    before, after = weights.index(GUIDE), weights.index(guide)
    same = before.keys() & after.keys()
    assert {"model.embed_tokens.weight", "model.norm.weight"} <= same
    for name in same:
        ours, theirs = (one.path.read_bytes()[one.begin : one.end] for one in (after[name], before[name]))
        assert ours == theirs, name
    assert {name.rpartition(".")[2] for name in after.keys() - same} == {"qweight", "qzeros", "scales", "g_idx"}
    assert all(after[name].dtype == "F16" for name in after if name.endswith("scales"))


def test_tokenizer_and_generation_settings_are_copied(guide: Path) -> None:
    names = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "generation_config.json")
    assert all((guide / name).read_bytes() == (GUIDE / name).read_bytes() for name in names)


def test_plain_gptqmodel_computes_what_transformers_computes(guide: Path) -> None:
    import torch
    from gptqmodel import GPTQModel

    model = GPTQModel.load(str(guide), device="cpu")
    with torch.inference_mode():
        found = model.model(torch.tensor([TOKENS])).logits[0].float().numpy()
    assert tiny.divergence(found, logits(guide, TOKENS)) < 1e-3


def test_our_engine_answers_from_it(guide: Path) -> None:
    from vigtui.backends.gptq import GptqBackend

    corpus = material.load()
    key = next(iter(corpus.questions))
    engine = GptqBackend()
    engine.load(ModelFiles("guide", "gptq", guide), LoadOptions(device="cpu"), silent)
    prompt = Prompt(((score.prompt(corpus.phrasings[key]["en"][0]), True),))
    greedy = Generation(temperature=0.0, repetition_penalty=1.0, max_tokens=60)
    said = "".join(e.delta for e in engine.stream(prompt, greedy, lambda: False) if isinstance(e, Text))
    engine.close()
    assert corpus.answers[key]["key_en"] in said


def test_the_estimate_covers_the_product(guide: Path) -> None:
    disk, memory = gptq.needs(GUIDE, 4, 128)
    product = sum(path.stat().st_size for path in guide.iterdir())
    assert product < disk
    assert (GUIDE / "model.safetensors").stat().st_size < memory
    assert gptq.needs(GUIDE, 4, 128, characters=10_000) < (disk, memory)


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({"bits": 8}, 1e-3),
        ({"bits": 4, "act_order": True}, 0.2),
        ({"bits": 4, "sym": False}, 0.2),
        ({"bits": 4, "group_size": -1}, 0.3),
        ({"bits": 3}, 0.6),
        ({"bits": 2, "sym": False}, 3.0),
    ],
    ids=["8bit", "act-order", "asym", "one-group", "3bit", "2bit"],
)
def test_every_form_says_and_computes_what_was_asked(
    small: Path, tmp_path: Path, options: dict[str, Any], most: float
) -> None:
    make(small, tmp_path / "made", tmp_path / "work", **options)
    found = gptq_layout.read(tmp_path / "made" / "model.safetensors")
    assert found.bits == options["bits"]
    assert found.group == options.get("group_size", 32)
    assert found.act_order == options.get("act_order", False)
    assert found.symmetric == options.get("sym", True)
    assert found.version == 1
    assert tiny.divergence(scored(tmp_path / "made"), logits(small, TOKENS)) < most
    assert not (tmp_path / "work").exists()


def test_a_source_in_float32_gives_half_precision_on_the_threads_asked_for(small: Path, tmp_path: Path) -> None:
    import torch

    used = set[int]()
    try:
        make(
            small,
            tmp_path / "made",
            tmp_path / "work",
            threads=2,
            progress=lambda *_: used.add(torch.get_num_threads()),
        )
    finally:
        torch.set_num_threads(1)
    assert used == {2}
    floats = {tensor.dtype for tensor in weights.index(tmp_path / "made").values()} - {"I32"}
    assert floats == {"F16"}


def test_another_architecture_in_bfloat16_loads_in_transformers(small: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    shape = {"d_model": 64, "n_layers": 2, "n_heads": 4, "vocab_size": 512, "max_seq_len": 256}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("mpt", **shape)).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "mpt")
    for name in ("tokenizer.model", "tokenizer_config.json"):
        (tmp_path / "mpt" / name).write_bytes((small / name).read_bytes())
    make(tmp_path / "mpt", tmp_path / "made", tmp_path / "work", bits=8)
    assert {tensor.dtype for tensor in weights.index(tmp_path / "made").values()} == {"BF16", "F16", "I32"}
    assert tiny.divergence(logits(tmp_path / "made", TOKENS), logits(tmp_path / "mpt", TOKENS)) < 1e-3


def test_pytorch_files_give_the_same_and_are_never_unpickled(small: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    pickled = tmp_path / "pickled"
    pickled.mkdir()
    for path in small.iterdir():
        if path.suffix != ".safetensors":
            (pickled / path.name).write_bytes(path.read_bytes())
    torch.save(load_file(small / "model.safetensors"), pickled / "pytorch_model.bin")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", lambda *_args, **_more: pytest.fail("unpickled"))
        make(pickled, tmp_path / "b", tmp_path / "work")
    make(small, tmp_path / "a", tmp_path / "work")
    one, other = (weights.index(tmp_path / name) for name in "ab")
    assert one.keys() == other.keys()
    for name in one:
        a, b = (t.path.read_bytes()[t.begin : t.end] for t in (one[name], other[name]))
        assert a == b, name


def run(small: Path, target: Path, work: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(small), str(target), str(work)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace", env=environment
    )


def layers(process: subprocess.Popen[str]) -> Iterator[int]:
    assert process.stdout
    for line in process.stdout:
        if line.startswith("LAYER "):
            yield int(line.split()[1])


def test_a_killed_run_leaves_no_product_and_the_next_goes_on(small: Path, tmp_path: Path) -> None:
    target, work = tmp_path / "made", tmp_path / "work"
    process = run(small, target, work)
    for layer in layers(process):
        if layer == 2:
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    assert process.stdout
    process.stdout.close()
    assert not target.exists() and work.is_dir()
    with run(small, target, work) as again:
        seen = list(layers(again))
    assert again.returncode == 0
    assert seen == [0, 2, 3]
    make(small, tmp_path / "whole", tmp_path / "other", texts=texts.calibration("en"))
    names = sorted(path.name for path in target.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert all((target / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in names)


def refusal(error: type[VigtuiError], source: Path, target: Path, **options: Any) -> VigtuiError:
    before = sorted(path for path in source.parent.rglob("*"))
    with pytest.raises(error) as raised:
        make(source, target, target.parent / "work", **options)
    assert raised.value.hint
    assert sorted(path for path in source.parent.rglob("*")) == before
    return raised.value


def test_rows_that_do_not_divide_are_named_with_what_fits(tmp_path: Path) -> None:
    source = tiny.write_llama(tmp_path / "llama", ffn=96)
    found = refusal(UsageError, source, tmp_path / "made", group_size=128)
    assert "down_proj" in found.message and "96" in found.message
    assert found.hint == "These group sizes fit: 16, 32, -1."


@pytest.mark.parametrize(
    "options",
    [{"bits": 5}, {"group_size": 0}, {"group_size": 40}, {"damp": 1.0}, {"samples": 0}, {"texts": ["a"]}],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(small: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    refusal(UsageError, small, tmp_path / "made", **options)
    assert not (tmp_path / "made").exists()


def test_the_product_is_never_put_over_something(small: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "mine").write_text("precious")
    refusal(UsageError, small, tmp_path / "made")
    refusal(UsageError, small, small)
    assert (tmp_path / "made" / "mine").read_text() == "precious"


def test_a_quantized_source_is_refused(tmp_path: Path) -> None:
    source = tiny.write_llama(tmp_path / "llama", layers=1)
    rewrite(source / "config.json", quantization_config={"bits": 4, "quant_method": "gptq"})
    assert "quantized already" in refusal(UsageError, source, tmp_path / "made").message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no folder of a Hugging Face model"),
        (lambda folder: (folder / "tokenizer.model").unlink(), "no tokenizer"),
        (lambda folder: (folder / "model.safetensors").unlink(), "lacks model.safetensors"),
        (lambda folder: os.truncate(folder / "model.safetensors", 5000), "model.safetensors"),
        (lambda folder: rewrite(folder / "config.json", model_type="mystery"), "architecture mystery"),
    ],
    ids=["no-config", "no-tokenizer", "no-weights", "cut-short", "unknown"],
)
def test_an_unfit_source_is_refused(tmp_path: Path, change: Any, says: str) -> None:
    source = tiny.write_llama(tmp_path / "llama", layers=1)
    change(source)
    assert says in refusal(FormatError, source, tmp_path / "made").message


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_missing_library_is_named_with_the_command(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "gptqmodel" else found(name, *rest)
    )
    error = refusal(BackendError, small, tmp_path / "made")
    assert error.exit_code == 7 and error.hint == 'pip install "vigtui[gptq]"'


def test_samples_are_spread_over_the_text_and_begin_with_bos() -> None:
    cut = gptq.chunks([1, *range(10, 10_010)], 1, 2048, 4)
    assert [len(piece) for piece in cut] == [2048] * 4
    assert all(piece[0] == 1 for piece in cut)
    assert len({piece[1] for piece in cut}) == 4
    assert [len(piece) for piece in gptq.chunks(list(range(100, 700)), None, 256, 128)] == [256, 256]
    assert gptq.chunks([1, 5, 6], 1, 256, 4) == []
