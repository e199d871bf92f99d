"""The workshop in processes that start fast and die on the spot: one process imports, and forks a run for each line.

A line is JSON: `order` the fields of an Order, `job` and `at` where to die: at the `at`-th event of the run itself
(`job` −1) or of its `job`-th stage. Events are what Python's audit hooks see of files, and every message of progress.
The answer is a line with the exit code and the events counted in each. Run it with -m.
"""

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import gguf  # noqa: F401 - before the forks
import numpy  # noqa: F401 - before the forks
import vigtui.backends.llama_cpp
import vigtui.backends.llama_native
from vigtui.core.errors import VigtuiError
from vigtui.registry.convert import model  # noqa: F401 - before the forks
from vigtui.registry.merge import merge  # noqa: F401 - before the forks
from vigtui.registry.workshop import job, job_child, pipeline, quality, quantize  # noqa: F401 - before the forks
from vigtui.registry.workshop.order import Order

vigtui.backends.llama_native.bindings()
SEEN = ("progress", "open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "fcntl.flock", "shutil.rmtree")


class Count:
    """Events so far in this process, the one to die at, and the file that they are told to."""

    def __init__(self) -> None:
        self.events, self.fatal, self.told, self.busy = 0, -1, 0, False

    def __call__(self, name: str, _arguments: object = ()) -> None:
        if name not in SEEN or self.busy:
            return
        self.busy = True
        self.events += 1
        if self.events == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        self.busy = False


COUNT = Count()


class Forked:
    """A stage in a fork of this process, with the face of subprocess.Popen."""

    number = 0

    def __init__(self, log: BinaryIO, _held: Sequence[int], fatal: int, counts: Path) -> None:
        asked, answered = os.pipe(), os.pipe()
        self.pid, self.code = os.fork(), None
        if not self.pid:
            os.close(asked[1])
            os.close(answered[0])
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            COUNT.events, COUNT.fatal = 0, fatal
            job_child.serve(os.fdopen(asked[0], "rb"), answered[1])
            os._exit(0)
        os.close(asked[0])
        os.close(answered[1])
        self.stdin, self.stdout = os.fdopen(asked[1], "wb"), os.fdopen(answered[0], "rb")

    def wait(self, timeout: float | None = None) -> int:
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code

    def terminate(self) -> None:
        return

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def tell(counts: Path) -> None:
    COUNT.busy = True
    with counts.open("a") as file:
        file.write(f"{COUNT.events}\n")


def child(line: str, counts: Path) -> int:
    wanted = json.loads(line)
    fields = {**wanted["order"], "adapters": tuple(map(tuple, wanted["order"].get("adapters", ())))}
    fields["types"] = tuple(fields["types"])

    def spawn(log: BinaryIO, held: Sequence[int]) -> Forked:
        fatal = wanted["at"] if Forked.number == wanted["job"] else -1
        Forked.number += 1
        return Forked(log, held, fatal, counts)

    job.spawn = spawn
    send = job_child._send

    def counted(answers: int, **message: object) -> None:
        COUNT("progress")
        if "result" in message:
            tell(counts)
        send(answers, **message)

    job_child._send = counted
    sys.addaudithook(COUNT)
    COUNT.fatal = wanted["at"] if wanted["job"] == -1 else -1
    try:
        pipeline.run(Order(**fields))
    except VigtuiError as error:
        COUNT.busy = True
        print(type(error).__name__, error, file=sys.stderr, flush=True)
        return error.exit_code
    tell(counts)
    return 0


def main() -> None:
    counts = Path(sys.argv[1])
    print("ready", flush=True)
    for line in sys.stdin:
        counts.write_text("")
        pid = os.fork()
        if not pid:
            os._exit(child(line, counts))
        _pid, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        print(json.dumps([code, list(map(int, counts.read_text().split()))]), flush=True)


if __name__ == "__main__":
    main()
