"""GPTQ, 4 bits, group size 128, of vigogneau: ours against gptqmodel called bare, same calibration."""

import tempfile
from functools import partial
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


def peer(target: Path, dtype: str = "bfloat16") -> None:
    """The library's calls and nothing else."""
    import torch
    from gptqmodel import GPTQModel, QuantizeConfig
    from transformers import AutoTokenizer
    from vigtui.registry.workshop import gptq, texts

    source = assets.path("vigogneau/hf")
    tokenizer = AutoTokenizer.from_pretrained(source)
    ids = tokenizer("\n\n".join(texts.calibration("mixed")))["input_ids"]
    samples = [{"input_ids": one, "attention_mask": [1] * len(one)} for one in gptq.chunks(ids, 1, 1024, SAMPLES)]
    model = GPTQModel.load(
        str(source), QuantizeConfig(bits=4, group_size=128, desc_act=False), dtype=getattr(torch, dtype)
    )
    model.quantize(samples, batch_size=1)
    model.save(str(target))


def main() -> None:
    """Print the table, or run one measurement in this process."""
    same = partial(peer, dtype="float32")
    contest("gptq", {"vigtui": ours, "gptqmodel in float32": same, "gptqmodel in bfloat16, as it comes": peer}, runs=3)


if __name__ == "__main__":
    main()
