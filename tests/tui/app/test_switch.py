"""A hundred switches of the model in one conversation: nothing is left behind."""

import os
import threading
from pathlib import Path

import pytest
from vigtui.backends.base import Generation
from vigtui.registry import open as opening
from vigtui.tui.desk import Desk

from ...tiny import write_gguf
from ..conftest import children
from .conftest import wish

TIMES, WARM = 100, 10
ROOM = 20 << 20
"""Bytes that the process of the app may grow by."""


def answered(desk: Desk) -> None:
    desk.session.say("Bonjour")
    for _event in desk.reply(lambda: False):
        pass


def held(desk: Desk) -> tuple[int, int, set[int], int]:
    """Give the descriptors, the threads, the children but the engine, and the resident bytes of this process."""
    others = set(children(os.getpid())) - {getattr(desk.engine, "pid", 0)}
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return len(os.listdir("/proc/self/fd")), threading.active_count(), others, resident


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="what a process holds is read as Linux tells it")
def test_a_hundred_switches_leave_nothing_behind(tmp_path: Path) -> None:
    models = [str(write_gguf(tmp_path / "tiny.gguf")), "vigogneau"]
    desk = Desk(wish(backend=None, generation=Generation(max_tokens=2)), opening.open)
    before = held(desk)
    for number in range(TIMES):
        desk.load(models[number % 2])
        if number % 9 == 8:
            answered(desk)
        if number + 1 == WARM:
            before = held(desk)
    descriptors, threads, others, resident = held(desk)
    assert len({entry.stamp.model for entry in desk.session.path() if entry.stamp}) == 2
    assert others == before[2] and descriptors <= before[0] and threads <= before[1]
    assert resident < before[3] + ROOM
    pid = getattr(desk.engine, "pid", None)
    desk.close()
    assert pid and not Path(f"/proc/{pid}").exists()
