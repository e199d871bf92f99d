"""The process that matches a stranger's regular expressions: [keys, modules] on its input, the places on its output."""

import json
import resource
import sys
from contextlib import suppress

from .pattern import SECONDS, first


def main() -> None:
    """Answer one request within the limits."""
    for limit, most in ((resource.RLIMIT_CPU, SECONDS), (resource.RLIMIT_AS, 1 << 30)):
        with suppress(ValueError, OSError):  # macOS knows no limit of memory
            resource.setrlimit(limit, (most, most))
    keys, modules = json.load(sys.stdin.buffer)
    json.dump(first(keys, modules), sys.stdout)


if __name__ == "__main__":
    main()
