"""GPTQ, 4 bits, group size 128, of vigogneau: ours against gptqmodel called bare, same calibration."""

import tempfile
from pathlib import Path

from vigtui import assets

from .table import contest

SAMPLES = 32


def ours(target: Path) -> None:
    """Quantize with checks, progress and atomic publication."""
    from vigtui.registry.workshop import gptq, texts

    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        gptq.quantize(
            assets.path("vigogneau/hf"), target, texts=texts.calibration("mixed"), samples=SAMPLES, work=Path(work)
        )


def peer(target: Path) -> None:
    """The library's calls and nothing else."""
    from gptqmodel import GPTQModel, QuantizeConfig
    from transformers import AutoTokenizer
    from vigtui.registry.workshop import gptq, texts

    source = assets.path("vigogneau/hf")
    tokenizer = AutoTokenizer.from_pretrained(source)
    samples = gptq.chunks(tokenizer, texts.calibration("mixed"), SAMPLES, 512)
    model = GPTQModel.load(str(source), QuantizeConfig(bits=4, group_size=128, desc_act=False))
    model.quantize(samples, batch_size=1)
    model.save(str(target))


def main() -> None:
    """Print the table, or run one measurement in this process."""
    contest("gptq", {"vigtui": ours, "gptqmodel": peer})


if __name__ == "__main__":
    main()
