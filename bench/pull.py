"""A pull of 256 MiB and more from the test hub against `hf download` of the same: whole processes, empty caches."""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .table import head, row

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
REPOSITORY, FILE, RUNS = "demo/big", "big.Q8_0.gguf", 5
COMMANDS = {
    "hf": [str(BIN / "hf"), "download", REPOSITORY, FILE, "--quiet"],
    "vigtui": [str(BIN / "vigtui"), "pull", REPOSITORY, "--yes"],
}


def main() -> None:
    """Print the table: bytes on the way and on the disk are the same; hf does not verify what it fetched."""
    server = subprocess.Popen([sys.executable, "-m", "tests.hub"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        os.environ["HF_ENDPOINT"] = server.stdout.readline().partition("=")[2].strip()
        with tempfile.TemporaryDirectory() as home:
            os.environ |= {"HF_HOME": f"{home}/hub", "VIGTUI_HOME": f"{home}/vigtui", "HF_HUB_DISABLE_TELEMETRY": "1"}
            times: dict[str, list[float]] = {"hf": [], "vigtui": []}
            for _run in range(RUNS + 1):  # in turns, so that a busy moment strikes both; the first warms up
                for name, taken in times.items():
                    taken.append(once(COMMANDS[name], Path(home)))
            blob = next(Path(home, "hub").glob("**/blobs/*"))
            size = blob.stat().st_size / (1 << 20)
            check = statistics.median(verify(blob) for _run in range(3))
    finally:
        server.terminate()
        server.wait()
    hf, ours = (statistics.median(taken[1:]) for taken in times.values())
    head("what", "seconds", "MiB/s", "ratio to hf download", "goal")
    row(f"hf download, {size:.0f} MiB", f"{hf:.2f}", f"{size / hf:.0f}", "1.00", "–")
    row("vigtui pull, verified", f"{ours:.2f}", f"{size / ours:.0f}", f"{hf / ours:.2f}", "–")
    row("of it sha256", f"{check:.2f}", f"{size / check:.0f}", "–", "–")
    row(
        "vigtui pull less sha256",
        f"{ours - check:.2f}",
        f"{size / (ours - check):.0f}",
        f"{hf / (ours - check):.2f}",
        0.95,
    )


def once(command: list[str], home: Path) -> float:
    """Give the seconds of one whole process that starts with an empty cache; it must succeed."""
    for folder in ("hub", "vigtui"):
        shutil.rmtree(home / folder, ignore_errors=True)
    return timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))


def verify(blob: Path) -> float:
    """Give the seconds that sha256 alone takes for these bytes in memory, in the blocks of a transfer."""
    import hashlib

    data = blob.read_bytes()
    digest = hashlib.sha256()
    view = memoryview(data)
    return timed(lambda: [digest.update(view[at : at + (64 << 10)]) for at in range(0, len(data), 64 << 10)])


def timed(work: Callable[[], object]) -> float:
    """Give the seconds that `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
