"""What the benchmarks share: rows of a table, runs in processes of their own, the middle of several runs."""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CACHE = Path(__file__).parent / ".cache"
"""Where models made for benchmarks are kept."""


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


def peak() -> float:
    """Give the peak of this process's resident memory so far, in MiB; what its parent held before does not count."""
    import resource

    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 1024  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


def timed(work: Callable[[], object]) -> dict[str, float]:
    """Do `work`; give its seconds and the peak memory of this process in MiB."""
    began = time.perf_counter()
    work()
    return {"seconds": time.perf_counter() - began, "mib": peak()}


def contest(module: str, works: dict[str, Callable[[Path], None]], runs: int = 2) -> None:
    """Print a table of works that each write a file or folder, the first being ours: best of `runs`, in turn, each in a
    process of its own. Called as `python -m bench.MODULE WHO TARGET`, do that one work and print its figures."""
    if len(sys.argv) > 2 and sys.argv[1] in works:
        print(json.dumps(timed(lambda: works[sys.argv[1]](Path(sys.argv[2])))))
        return
    found: dict[str, list[dict[str, float]]] = {who: [] for who in works}
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        for who in [*reversed(works)] * runs:
            target = Path(folder) / "product"
            found[who].append(measure(module, who, target))
            shutil.rmtree(target) if target.is_dir() else target.unlink()
    best = {who: min(figures, key=lambda one: one["seconds"]) for who, figures in found.items()}
    ours = best[next(iter(works))]
    head("who", "seconds", "ours ÷ theirs", "peak MiB", "ours ÷ theirs")
    for who, one in best.items():
        shares = (f"{ours[name] / one[name]:.2f}" for name in ("seconds", "mib"))
        row(who, f"{one['seconds']:.1f}", next(shares), f"{one['mib']:.0f}", next(shares))
