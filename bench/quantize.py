"""Quantizing a 1.1B F16 GGUF to Q4_K_M: ours against `llama_model_quantize` called bare, same threads."""

from pathlib import Path

from . import models
from .table import contest


def source() -> Path:
    """Give the F16 file, made once."""
    path = models.CACHE / "random-1.1b.f16.gguf"
    if not path.exists():
        models.CACHE.mkdir(exist_ok=True)
        part = path.with_suffix(".part")
        models.write(part)
        part.rename(path)
    return path


def ours(target: Path) -> None:
    """Quantize with progress, checks and atomic publication."""
    from vigtui.registry.workshop.quantize import quantize

    quantize(source(), target, "Q4_K_M", threads=4)


def peer(target: Path) -> None:
    """The library's call and nothing else."""
    models.quantize(source(), target)


def main() -> None:
    """Print the table, or run one measurement in this process."""
    source()
    contest("quantize", {"vigtui": ours, "llama_model_quantize": peer}, runs=2)


if __name__ == "__main__":
    main()
