"""Converting a 1.1B float16 model to GGUF F16: ours against a raw copy of the same bytes on the same disk."""

import os
from pathlib import Path

from . import models
from .table import contest

BLOCK = 8 << 20


def ours(target: Path) -> None:
    """Convert."""
    from vigtui.registry.convert.model import convert

    convert(models.folder(), target, "f16")


def peer(target: Path) -> None:
    """Copy the weights block by block and sync."""
    with target.open("wb") as out:
        for path in sorted(models.folder().glob("*.safetensors")):
            with path.open("rb") as file:
                while block := file.read(BLOCK):
                    out.write(block)
        out.flush()
        os.fsync(out.fileno())


def main() -> None:
    """Print the table, or run one measurement in this process."""
    models.folder()
    contest("convert", {"vigtui": ours, "raw copy": peer}, runs=3)


if __name__ == "__main__":
    main()
