"""Decoding and time to first token: ours against llama-cpp-python's `create_completion`, same file, same sampling."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from . import models
from .table import head, measure, row

PROMPT = "<|user|>: Bonjour, comment installer un modèle ?\n<|assistant|>:"
SAMPLING = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}
RUNS = 3


def ours(path: Path, tokens: int, threads: int) -> dict[str, float]:
    """Stream `tokens` tokens through the llama.cpp backend, in this process."""
    from vigtui.backends.base import Done, Generation, LoadOptions, ModelFiles, Prompt, Text
    from vigtui.backends.llama_cpp import LlamaCppBackend

    engine = LlamaCppBackend()
    engine.load(ModelFiles("bench", "gguf", path), LoadOptions(threads=threads), lambda *_step: None)
    generation = Generation(**SAMPLING, repetition_penalty=1.0, seed=1, max_tokens=tokens, min_tokens=tokens)  # type: ignore[arg-type]

    def run() -> dict[str, float]:
        began = time.perf_counter()
        first = None
        for event in engine.stream(Prompt(((PROMPT, True),)), generation, lambda: False):
            if isinstance(event, Text):
                first = first or time.perf_counter()
            elif isinstance(event, Done):
                assert event.completion_tokens == tokens
        ended = time.perf_counter()
        engine.adapt([])
        return {"first": (first or ended) - began, "rate": tokens / (ended - began)}

    return best(run, lambda: list(engine.stream(Prompt((("x", True),)), Generation(max_tokens=1), lambda: False)))


def peer(path: Path, tokens: int, threads: int, stream: bool) -> dict[str, float]:
    """The same through the high-level API."""
    import llama_cpp

    llama = llama_cpp.Llama(str(path), n_ctx=0, n_threads=threads, n_threads_batch=threads, verbose=False)
    options: dict[str, Any] = SAMPLING | {"repeat_penalty": 1.0, "seed": 1, "max_tokens": tokens}
    options["logit_bias"] = {llama.token_eos(): -100.0}

    def run() -> dict[str, float]:
        began = time.perf_counter()
        first = None
        answer = llama.create_completion(PROMPT, stream=stream, **options)
        for piece in answer if stream else ():
            if first is None and piece["choices"][0]["text"]:  # type: ignore[index]
                first = time.perf_counter()
        ended = time.perf_counter()
        return {"first": (first or ended) - began, "rate": tokens / (ended - began)}

    return best(run, llama.reset)


def best(run: Any, between: Any) -> dict[str, float]:
    """Give the best of several runs, each from an empty cache."""
    results = []
    for _turn in range(RUNS):
        between()
        results.append(run())
    return {"first": min(r["first"] for r in results), "rate": max(r["rate"] for r in results)}


def compare(name: str, path: Path, tokens: int, threads: int) -> None:
    """Print the rows of one model."""
    mine = measure("decode", "ours", path, tokens, threads)
    row(name, "vigtui", f"{mine['rate']:.0f}", "1.00", f"{mine['first'] * 1000:.1f}", "1.00")
    for label, role in (("create_completion, streamed", "stream"), ("create_completion, whole", "whole")):
        other = measure("decode", role, path, tokens, threads)
        ratio, first = mine["rate"] / other["rate"], other["first"] / mine["first"]
        shown = (f"{other['first'] * 1000:.1f}", f"{first:.2f}") if role == "stream" else ("–", "–")
        row(name, label, f"{other['rate']:.0f}", f"{ratio:.2f}", *shown)


def main() -> None:
    """Print the table, or run one measurement in this process."""
    if len(sys.argv) > 2 and sys.argv[1] in ("ours", "stream", "whole"):
        role, path, tokens, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
        result = ours(path, tokens, threads) if role == "ours" else peer(path, tokens, threads, role == "stream")
        print(json.dumps(result))
        return
    from vigtui.backends.threads import physical_cores

    head("model", "who", "tokens/s", "ours ÷ theirs", "first token, ms", "theirs ÷ ours")
    compare("vigogneau", models.embedded(), 900, 1)
    compare("random 1.1B Q4_K_M", models.billion(), 128, physical_cores())


if __name__ == "__main__":
    main()
