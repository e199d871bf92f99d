"""How well vigogneau answers, for F16 and for the shipped Q8_0: `python bench/guide.py`.

Every answer is greedy and comes through vigtui's own llama.cpp backend; the questions are in tests/data/guide.toml.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from vigtui import assets
from vigtui.assets.vigogneau import score
from vigtui.backends import create
from vigtui.backends.base import Backend, Generation, LoadOptions, ModelFiles, Prompt, Text
from vigtui.core.progress import silent

GREEDY = Generation(temperature=0.0, repetition_penalty=1.0, max_tokens=80)


def answerer(backend: Backend) -> score.Answerer:
    """Give a function that answers a prompt greedily with `backend`."""

    def ask(prompt: str, known: Callable[[str], bool]) -> str:
        parts: list[str] = []
        for event in backend.stream(Prompt(((prompt, True),)), GREEDY, lambda: known("".join(parts))):
            if isinstance(event, Text):
                parts.append(event.delta)
        return "".join(parts).strip()

    return ask


def load(path: Path) -> Backend:
    """Give the llama.cpp backend, in this process, with the GGUF file at `path`."""
    backend = create("llama.cpp", in_process=True)
    backend.load(ModelFiles("vigogneau", "gguf", path), LoadOptions(context=1024), silent)
    return backend


def report(name: str, path: Path) -> None:
    """Examine the model at `path` and print a line for each kind of question and language."""
    backend, questions, started = load(path), list(score.cases()), time.monotonic()
    result = score.examine(answerer(backend), questions)
    backend.close()
    print(f"{name}: {path.stat().st_size / 1e6:.1f} MB, {len(questions)} answers, {time.monotonic() - started:.0f} s")
    for (kind, lang), percent in result.percent.items():
        gate = f"(gate {score.GATES[kind][1]})"
        print(f"  {kind:10} {lang}  " + "  ".join(f"{what} {value:5.1f} %" for what, value in percent.items()), gate)
    print("  " + ("; ".join(result.failures()) or "every gate passed"))


def main() -> None:
    """Score the F16 weights of the Hugging Face folder and the shipped file."""
    from vigtui.registry.convert.model import convert

    home = assets.path("vigogneau")
    with tempfile.TemporaryDirectory() as folder:
        exact = Path(folder) / "vigogneau-f16.gguf"
        convert(home / "hf", exact, "f16", silent)
        report("F16", exact)
    report("Q8_0", home / "vigogneau.gguf")


if __name__ == "__main__":
    main()
