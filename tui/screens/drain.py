"""A queue that is worked off while its screen is closed."""

from typing import Any

from textual.app import App
from textual.worker import get_current_worker

from ...core.text import line
from ..queue import Queue, W


def drain(app: App[Any], queue: Queue[W], group: str, done: str) -> None:
    """Do what waits in `queue` in a thread that outlives the screen, and notify of each that ended.

    `done` is the sentence for what succeeded, with {name} in it.
    """

    def tell(one: W) -> None:
        if one.state == "done":
            app.notify(done.format(name=line(one.ref)), markup=False)
        elif one.error is not None:
            app.notify(line(f"{one.ref}: {one.error}"), severity="error", timeout=10, markup=False)

    def run() -> None:
        worker = get_current_worker()
        queue.run(lambda: worker.is_cancelled, tell)

    app.run_worker(run, thread=True, group=group, exit_on_error=False, name=group)
