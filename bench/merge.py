"""Merging LoRA into a 1.1B float16 model: ours, streamed, against PEFT's load, merge and save, each in a process."""

from pathlib import Path

from . import models
from .table import contest


def ours(target: Path) -> None:
    """Merge tensor by tensor."""
    from vigtui.registry.merge.merge import merge

    merge(models.folder(), [(models.adapter(), 1.0)], target)


def peer(target: Path) -> None:
    """Load, merge and save with transformers and PEFT."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(models.folder(), dtype=torch.float16)
    merged = PeftModel.from_pretrained(base, models.adapter()).merge_and_unload()
    merged.save_pretrained(target)


def main() -> None:
    """Print the table, or run one measurement in this process."""
    models.adapter()
    contest("merge", {"vigtui": ours, "PEFT": peer}, runs=1)


if __name__ == "__main__":
    main()
