"""Switching the model: seconds a switch, and resident memory before and after 100 of them."""

import os
import time

import psutil
from vigtui.backends.base import Generation, LoadOptions, Prompt
from vigtui.registry import open as opening

from .engines import files
from .table import head, row

TIMES = 100


def resident() -> float:
    """Give the memory of this process and its children, in MiB."""
    process = psutil.Process(os.getpid())
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True))) / (1 << 20)


def main() -> None:
    """Open, ask and close engines in turn."""
    paths = [str(files("llama.cpp")), str(files("transformers"))]
    head("", "seconds", "resident MiB", "processes")
    turns = [*paths, *[paths[0]] * (TIMES - 2)]  # the second takes seconds to import torch
    took, before = [], resident()
    row("before", "–", f"{before:.0f}", 1)
    for path in turns:
        began = time.perf_counter()
        engine = opening.open(opening.resolve(path), LoadOptions(threads=1))
        list(engine.stream(Prompt((("Bonjour", True),)), Generation(max_tokens=4), lambda: False))
        took.append(time.perf_counter() - began)
        engine.close()
    children = len(psutil.Process().children(recursive=True))
    row("llama.cpp, first", f"{took[0]:.2f}", "–", "–")
    row("transformers", f"{took[1]:.2f}", "–", "–")
    row(f"llama.cpp, middle of {TIMES - 2}", f"{sorted(took[2:])[len(took) // 2]:.3f}", "–", "–")
    row(f"after {TIMES}", "–", f"{resident():.0f}", 1 + children)


if __name__ == "__main__":
    main()
