"""The workshop of the app: jobs one after the other, which go on while their screen is closed. No widget in it."""

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ..registry.record import Record
from ..registry.transfer import Paused, Stop
from .queue import Queue

if TYPE_CHECKING:
    from ..registry.workshop.order import Order
    from ..registry.workshop.pipeline import Step

State = Literal["waiting", "running", "stopped", "failed", "done"]


@dataclass(eq=False)
class Job:
    """An order and how far it is; `ref` names its products, `steps` are those begun so far, the last one under way.

    `made` are the models that came of it, `error` is why it failed.
    """

    ref: str
    order: "Order"
    state: State = "waiting"
    steps: "list[Step]" = field(default_factory=list)
    made: list[Record] = field(default_factory=list)
    error: Exception | None = None
    halt: threading.Event = field(default_factory=threading.Event)

    @property
    def live(self) -> bool:
        """Whether it is on its way, or waits for its turn."""
        return self.state in ("waiting", "running")

    @property
    def step(self) -> "Step | None":
        """The step under way, or the last one."""
        return self.steps[-1] if self.steps else None

    def observe(self, step: "Step") -> None:
        """Keep how far it is: a step that goes on takes the place of what was known of it."""
        last = self.step
        if last and (last.title, last.number) == (step.title, step.number):
            self.steps[-1] = step
        else:
            self.steps.append(step)


class Jobs(Queue[Job]):
    """What is made and what waits."""

    def halt(self, one: Job) -> None:
        """Stop a job; what is finished of it is kept."""
        with self._lock:
            one.halt.set()
            if one.state == "waiting":
                one.state = "stopped"

    def forget(self, one: Job) -> None:
        """Take a job that has ended off the list."""
        with self._lock:
            self.all = [other for other in self.all if other is not one or one.live]

    def do(self, one: Job, stop: Stop) -> None:
        from ..chat.probe import probe  # only now: the app opens without the workshop
        from ..registry.workshop import pipeline

        try:
            one.made = pipeline.run(one.order, probe, one.observe, lambda: stop() or one.halt.is_set())
            one.state = "done"
        except Paused:
            one.state = "stopped"
        except Exception as error:  # the edge: whatever happened is told in the list
            one.state, one.error = "failed", error
