"""How far an order is, as whoever waits for it is told."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ...backends.base import Stop
from .. import pull
from . import job
from . import stage as stages
from .stage import Stage


@dataclass(frozen=True, slots=True)
class Step:
    """How far an order is: stage `number` of `count`, `work` and `title` saying which.

    `state` is "run", "wait" (another process makes the same), "found" (the model in `label` is here already), "notice"
    (`label` is a sentence for people), "kept" (the stage's output in `label` stays) or "done". `detail`
    is what the stage is doing, `done` of `total` in its own unit (0 when not known); `left` seconds, None while that
    cannot be known. `size` is the stage's output in bytes, `log` where its libraries print.
    """

    number: int
    count: int
    work: str
    title: str
    state: str = "run"
    detail: str = ""
    done: int = 0
    total: int = 0
    left: float | None = None
    size: int = 0
    log: Path | None = None
    label: str = ""


Observe = Callable[[Step], None]


def named(work: str, size: int = 0) -> Stage:
    """Give a step of this process, which leaves nothing in the journal."""
    return Stage(work, "", None, {}, size=size)


class Meter:
    """Turns a stage's progress into steps, with the time that is left by its own pace."""

    def __init__(self, observe: Observe, stop: Stop) -> None:
        self.observe, self.stop = observe, stop
        self.step = Step(0, 0, "", "")
        self.began = (0.0, 0, "")

    def begin(self, stage: Stage, number: int, count: int, state: str = "run") -> None:
        """Tell of a stage that begins, or of something that just is, as `state` says."""
        log = job.log_of(stage) if stage.key else None
        self.step = Step(number, count, stage.work, stage.title, state, size=stage.size, log=log, label=stage.label)
        self.began = (time.monotonic(), 0, "")
        self.observe(self.step)

    def progress(self, detail: str, done: int, total: int) -> None:
        """Tell how far the stage is. Raises Paused when the person wants a stop."""
        if self.stop():
            raise job.stopped()
        now, (since, start, name) = time.monotonic(), self.began
        if name != detail:
            since, start = now, done
            self.began = (since, start, detail)
        left = (total - done) * (now - since) / (done - start) if done > start and total else None
        self.step = replace(self.step, state="run", detail=detail, done=done, total=total, left=left)
        self.observe(self.step)

    def change(self, state: str) -> None:
        """Tell of the stage's new state."""
        self.step = replace(self.step, state=state)
        self.observe(self.step)

    def pulling(self, number: int, count: int) -> pull.Observe:
        """Give what tells the steps of the pull `number` of `count`."""
        titled = stages.titles()["pull"]

        def observe(step: pull.Step) -> None:
            name = step.file.rpartition("/")[2]
            told = Step(number, count, "pull", titled, "run", name, step.total_done, step.total, step.left, step.total)
            self.observe(told)

        return observe
