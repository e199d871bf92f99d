"""Run every benchmark, one at a time, and print one table: `make bench`, or `python -m bench decode prefix`."""

import importlib
import sys

ALL = (
    "startup", "decode", "prefix", "formats", "registry", "pull", "guide", "app",
    "merge", "convert", "quantize", "gptq", "engines", "choice", "switch", "server",
)  # fmt: skip


def main() -> None:
    """Run the named benchmarks, or all."""
    for name in sys.argv[1:] or ALL:
        print(f"\n## {name}\n", flush=True)
        importlib.import_module(f"bench.{name}").main()


if __name__ == "__main__":
    main()
