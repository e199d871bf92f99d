"""Pulls in processes of their own that start fast: one process imports, and forks a child for each line on stdin.

Each line is a reference; the answer is the child's id, and when it has ended its exit code. Run it with -m.
"""

import os
import sys

from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url  # noqa: F401 - before the forks
from vigtui.core.errors import VigtuiError
from vigtui.registry import check, describe, pull
from vigtui.registry.order import prepare


def child(reference: str) -> int:
    try:
        record = pull.fetch(prepare(reference))
        describe.describe(record.path)
        check.sniff(record.path)
    except VigtuiError as error:
        print(type(error).__name__, error, file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def main() -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            os._exit(child(line.strip()))
        print(pid, flush=True)
        _pid, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
