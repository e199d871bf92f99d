"""One random Llama of 1.1 billion parameters in four forms: what each engine makes of it on the CPU, four threads."""

import json
import sys
import tempfile
import time
from pathlib import Path

from . import models
from .table import CACHE, head, measure, peak, row

TOKENS, WORDS, THREADS = 32, 80, 4
FORMS = {
    "GGUF Q4_K_M": ("llama.cpp", "gguf"),
    "GGUF F16": ("llama.cpp", "gguf"),
    "Hugging Face, bfloat16": ("transformers", "safetensors"),
    "GPTQ, 4 bits": ("gptq", "gptq"),
}


def path(form: str) -> Path:
    """Give the file or folder of a form, made once and kept in bench/.cache."""
    if form == "GGUF Q4_K_M":
        return models.billion()
    if form.startswith("Hugging Face"):
        return models.folder()
    target = CACHE / f"random-1.1b.{'f16.gguf' if form == 'GGUF F16' else 'gptq'}"
    if not target.exists():
        (models.write if form == "GGUF F16" else _gptq)(target)
    return target


def _gptq(target: Path) -> None:
    from vigtui.registry.workshop import gptq, texts

    with tempfile.TemporaryDirectory(dir=CACHE) as work:
        gptq.quantize(models.folder(), target, texts=texts.calibration("mixed"), samples=4, work=Path(work))


def rates(form: str) -> dict[str, float]:
    """Load a form; give seconds to load, tokens a second of prefill and decoding, and the peak of memory in MiB."""
    from vigtui.backends import create
    from vigtui.backends.base import Done, Generation, LoadOptions, ModelFiles, Prompt
    from vigtui.core.progress import silent

    backend, kind = FORMS[form]
    engine = create(backend, in_process=True)
    dtype = "bf16" if backend == "transformers" else None
    began = time.perf_counter()
    engine.load(ModelFiles("bench", kind, path(form)), LoadOptions(threads=THREADS, context=1024, dtype=dtype), silent)
    loaded = time.perf_counter() - began
    values = Generation(temperature=0.0, repetition_penalty=1.0, max_tokens=TOKENS, min_tokens=TOKENS)
    text = " ".join(f"w{number:x}" for number in range(1, WORDS))
    list(engine.stream(Prompt((("x", True),)), Generation(max_tokens=2), lambda: False))
    (done,) = [e for e in engine.stream(Prompt(((text, True),)), values, lambda: False) if isinstance(e, Done)]
    read = done.prompt_tokens - done.cached_tokens
    return {"load": loaded, "prefill": read / done.prefill_s, "decode": TOKENS / done.decode_s, "mib": peak()}


def size(place: Path) -> int:
    """Give the bytes on the disk."""
    return sum(one.stat().st_size for one in (place.rglob("*") if place.is_dir() else [place]) if one.is_file())


def main() -> None:
    """Print the table, or do one measurement in this process."""
    if len(sys.argv) > 2 and sys.argv[1] in ("rates", "make"):
        print(json.dumps(rates(sys.argv[2]) if sys.argv[1] == "rates" else {"bytes": size(path(sys.argv[2]))}))
        return
    head("form", "engine", "on the disk, MB", "memory, MiB", "load, s", "prefill, tokens/s", "decode, tokens/s")
    for form, (engine, _kind) in FORMS.items():
        held = measure("choice", "make", form)["bytes"] / 10**6  # in a process of its own: gptqmodel talks
        one = measure("choice", "rates", form)
        cells = (
            f"{held:.0f}",
            f"{one['mib']:.0f}",
            f"{one['load']:.1f}",
            f"{one['prefill']:.0f}",
            f"{one['decode']:.1f}",
        )
        row(form, engine, *cells)


if __name__ == "__main__":
    main()
