"""Decoding and prefill of each backend against its library's bare loop, and the engine process against none.

Greedy, the same weights (vigogneau: F16 GGUF, its Hugging Face folder, its GPTQ quantization), one thread, each
measurement in a process of its own.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from vigtui import assets

from .table import CACHE, head, measure, row

TOKENS, PROMPT, RUNS = 400, 512, 3
KINDS = {"llama.cpp": "gguf", "transformers": "safetensors", "gptq": "gptq"}


def files(name: str) -> Path:
    """Give what the backend `name` loads, made once and kept in bench/.cache."""
    source, target = assets.path("vigogneau/hf"), CACHE / f"vigogneau-{name}"
    if name == "transformers":
        return source
    if not target.exists():
        CACHE.mkdir(exist_ok=True)
        (_gguf if name == "llama.cpp" else _gptq)(source, target)
    return target


def _gguf(source: Path, target: Path) -> None:
    from vigtui.registry.convert.model import convert

    convert(source, target, "f16")


def _gptq(source: Path, target: Path) -> None:
    from vigtui.registry.workshop import gptq, texts

    with tempfile.TemporaryDirectory(dir=CACHE) as work:
        gptq.quantize(source, target, texts=texts.calibration("mixed"), samples=32, work=Path(work))


def ours(name: str, in_process: bool = True) -> dict[str, float]:
    """Stream through our backend."""
    from vigtui.backends import create
    from vigtui.backends.base import Done, Generation, LoadOptions, ModelFiles, Prompt
    from vigtui.core.progress import silent

    engine = create(name, in_process=in_process)
    engine.load(ModelFiles("bench", KINDS[name], files(name)), LoadOptions(threads=1, context=1024), silent)
    text = _text(lambda text: len(engine.tokenize(Prompt(((text, True),)))))
    values = Generation(temperature=0.0, repetition_penalty=1.0, max_tokens=TOKENS, min_tokens=TOKENS)

    def run() -> tuple[float, float]:
        list(engine.stream(Prompt((("x", True),)), Generation(max_tokens=1), lambda: False))
        began = time.perf_counter()
        (done,) = [e for e in engine.stream(Prompt(((text, True),)), values, lambda: False) if isinstance(e, Done)]
        assert done.completion_tokens == TOKENS
        whole = time.perf_counter() - began
        return done.prefill_s * PROMPT / (done.prompt_tokens - done.cached_tokens), whole - done.prefill_s

    found = best(run)
    engine.close()
    return found


def _text(count: Callable[[str], int]) -> str:
    """Give a prompt of nearly PROMPT tokens."""
    words = ["Comment", "installer", "un", "modèle", "sur", "ma", "machine", "et", "le", "lancer", "ensuite", "?"]
    text = "x"
    while count(text + " " + words[0]) < PROMPT:
        text, words = f"{text} {words[0]}", [*words[1:], words[0]]
    return text


def best(run: Callable[[], tuple[float, float]]) -> dict[str, float]:
    """Give the best rates of several runs after one that warms up, in tokens a second."""
    run()
    runs = [run() for _ in range(RUNS)]
    return {"prefill": PROMPT / min(one[0] for one in runs), "decode": TOKENS / min(one[1] for one in runs)}


def bare_llama() -> dict[str, float]:
    """`llama_decode` and the greedy sampler, nothing else."""
    from vigtui.backends.llama_native import bindings

    native = bindings()
    native.llama_backend_init()
    model = native.llama_model_load_from_file(str(files("llama.cpp")).encode(), native.llama_model_default_params())
    settings = native.llama_context_default_params()
    settings.n_ctx, settings.n_batch, settings.n_threads, settings.n_threads_batch = 1024, PROMPT, 1, 1
    context = native.llama_init_from_model(model, settings)
    sampler = native.llama_sampler_init_greedy()
    prompt = (native.llama_token * PROMPT)(*([1] + [300 + i % 500 for i in range(PROMPT - 1)]))

    def run() -> tuple[float, float]:
        native.llama_memory_clear(native.llama_get_memory(context), True)
        began = time.perf_counter()
        native.llama_decode(context, native.llama_batch_get_one(prompt, PROMPT))
        native.llama_synchronize(context)
        middle, one = time.perf_counter(), (native.llama_token * 1)()
        for _step in range(TOKENS):
            one[0] = native.llama_sampler_sample(sampler, context, -1)
            native.llama_decode(context, native.llama_batch_get_one(one, 1))
        return middle - began, time.perf_counter() - middle

    return best(run)


def bare_torch(name: str) -> dict[str, float]:
    """`generate` of transformers or gptqmodel, without streaming."""
    import torch

    torch.set_num_threads(1)
    if name == "gptq":
        from gptqmodel import GPTQModel

        model = GPTQModel.load(str(files(name)), device="cpu").model
    else:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(files(name), dtype=torch.float32)
    prompt = torch.tensor([[1] + [300 + i % 500 for i in range(PROMPT - 1)]])

    def timed(tokens: int) -> float:
        began = time.perf_counter()
        model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=tokens,
            min_new_tokens=tokens, pad_token_id=0, repetition_penalty=1.0,
        )  # fmt: skip
        return time.perf_counter() - began

    def run() -> tuple[float, float]:
        first = timed(1)
        return first, timed(TOKENS + 1) - first

    return best(run)


WORK: dict[str, Callable[[str], dict[str, float]]] = {
    "files": lambda name: {"made": files(name).exists()},
    "ours": ours,
    "child": lambda name: ours(name, in_process=False),
    "bare": lambda name: bare_llama() if name == "llama.cpp" else bare_torch(name),
}


def main() -> None:
    """Print the table, or run one measurement in this process."""
    if len(sys.argv) > 2 and sys.argv[1] in WORK:
        print(json.dumps(WORK[sys.argv[1]](sys.argv[2])))
        return
    head("backend", "who", "prefill, tokens/s", "ours ÷ theirs", "decode, tokens/s", "ours ÷ theirs")
    for name in KINDS:
        measure("engines", "files", name)  # in a process of its own: gptqmodel talks
        mine = measure("engines", "ours", name)
        for who, label in (("ours", "in this process"), ("child", "engine process"), ("bare", "the library alone")):
            other = mine if who == "ours" else measure("engines", who, name)
            shares = [f"{mine[what] / other[what]:.2f}" for what in ("prefill", "decode")]
            row(name, label, f"{other['prefill']:.0f}", shares[0], f"{other['decode']:.0f}", shares[1])


if __name__ == "__main__":
    main()
