"""Memory that a model could still take, as the system tells it."""

import os
import shutil
import subprocess
from pathlib import Path

_PROC, _CGROUP = Path("/proc"), Path("/sys/fs/cgroup")


def available() -> int | None:
    """Give the bytes of memory available, within the control group's limit; None where it cannot be known."""
    known = [value for value in (_machine(), *_groups()) if value is not None]
    return min(known, default=None)


def gpu() -> int | None:
    """Give the free bytes of the GPUs together, as nvidia-smi tells them; None where there is none."""
    lines = _smi("--query-gpu=memory.free")
    return sum(int(line) << 20 for line in lines) if lines else None


def gpu_processes() -> dict[int, int]:
    """Give process id → bytes of GPU memory, as nvidia-smi tells them."""
    pairs = (line.split(", ") for line in _smi("--query-compute-apps=pid,used_gpu_memory"))
    return {int(pair[0]): int(pair[1]) << 20 for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def disk(folder: Path) -> int:
    """Give the free bytes of the disk that `folder` is or will be on."""
    return shutil.disk_usage(next(one for one in (folder, *folder.parents) if one.exists())).free


def _smi(query: str) -> list[str]:
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, env=os.environ | {"LC_ALL": "C"})
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = [line.strip() for line in done.stdout.splitlines()]
    return [line for line in lines if line[:1].isdecimal()] if done.returncode == 0 else []


def _machine() -> int | None:
    for line in _lines(_PROC / "meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _groups() -> list[int | None]:
    """Give what each memory control group above this process leaves (versions 1 and 2)."""
    found: list[int | None] = []
    for line in _lines(_PROC / "self" / "cgroup"):
        _id, controllers, name = line.split(":", 2)
        if controllers not in ("", "memory") and "memory" not in controllers.split(","):
            continue
        base = _CGROUP / "memory" if controllers else _CGROUP
        limit, usage = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        )
        group = base / name.strip("/")
        for folder in (group, *group.parents):
            found.append(_left(folder, limit, usage))
            if folder == base:
                break
    return found


def _left(folder: Path, limit: str, usage: str) -> int | None:
    most, used = _number(folder / limit), _number(folder / usage)
    if most is None or used is None or most >= 1 << 60:
        return None
    stat = dict(line.split() for line in _lines(folder / "memory.stat") if line.count(" ") == 1)
    cached = int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))  # given back on demand
    return max(0, most - used + cached)


def _number(path: Path) -> int | None:
    text = "".join(_lines(path))
    return int(text) if text.isdecimal() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
