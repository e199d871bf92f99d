"""What the benchmarks share: rows of a table, runs in processes of their own, the middle of several runs."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any


def row(*cells: object) -> None:
    """Print one row of a Markdown table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def head(*cells: str) -> None:
    """Print the head of a Markdown table."""
    row(*cells)
    row(*["---"] * len(cells))


def measure(module: str, *arguments: object) -> dict[str, Any]:
    """Run `python -m bench.MODULE ARGUMENTS` alone and give the JSON object it prints last."""
    command = [sys.executable, "-m", f"bench.{module}", *map(str, arguments)]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(out.stdout.strip().splitlines()[-1])


def wall(command: list[str], until: bytes | None = None) -> float:
    """Give the seconds a command takes, to its end or to the first byte of its output."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        os.read(process.stdout.fileno(), 1)
        first = time.perf_counter()
        process.stdout.read()
    return (first if until is not None else time.perf_counter()) - began


def middle(run: Callable[[], float], times: int = 7) -> float:
    """Give the median of several runs, after one that warms up."""
    run()
    return statistics.median(run() for _ in range(times))
