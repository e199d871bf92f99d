import os

import pytest
from vigtui.backends import threads


def test_small_models_take_one_thread() -> None:
    assert threads.default(5_000_000) == 1


def test_never_more_than_the_process_may_use() -> None:
    assert 1 <= threads.default(7_000_000_000) <= len(os.sched_getaffinity(0))


def test_affinity_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0})
    assert threads.physical_cores() == 1


def test_a_quota_below_one_cpu_still_gives_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_quota", lambda: 0.5)
    assert threads.physical_cores() == 1
