"""How many threads an engine may use: more than the cores that are really free costs two orders of magnitude."""

import math
import os
from pathlib import Path

SMALL_MODEL = 50_000_000
"""Parameters below which one thread is fastest (measured on a 7M model: the threads only wait for each other)."""


def default(parameters: int) -> int:
    """Give the number of threads for a model of that many parameters."""
    return 1 if parameters < SMALL_MODEL else physical_cores()


def physical_cores() -> int:
    """Give the physical cores that this process may use: within its CPU affinity and its cgroup's quota."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_siblings(cpu) for cpu in allowed}
    return max(1, min(len(cores), math.floor(_quota() or len(cores))))


def _siblings(cpu: int) -> str:
    """The hyper-threads that share a core with `cpu`, as Linux names them; each CPU alone elsewhere."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


def _quota() -> float | None:
    """CPUs that the cgroup grants (v2 `cpu.max`, v1 `cpu.cfs_*`), or None without a limit."""
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    found = [limit for line in groups if (limit := _group_quota(line)) is not None]
    return min(found, default=None)


def _group_quota(line: str) -> float | None:
    _id, controllers, path = line.split(":", 2)
    for root in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/cpu")):
        for folder in (root / path.lstrip("/"), root):
            try:
                if not controllers:
                    quota, period = (folder / "cpu.max").read_text().split()
                elif "cpu" in controllers.split(","):
                    quota = (folder / "cpu.cfs_quota_us").read_text().strip()
                    period = (folder / "cpu.cfs_period_us").read_text()
                else:
                    return None
                return None if quota in ("max", "-1") else int(quota) / int(period)
            except (OSError, ValueError):
                continue
    return None
