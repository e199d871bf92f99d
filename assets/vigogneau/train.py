"""Train vigogneau and its sailor's adapter from the corpus, in under an hour on four cores.

Stages, each of which may be run alone by name: tokenizer, model, doubt, adapter, export. A GPU is used where torch
sees one; otherwise up to three processes, of which each trains on its own rows and all average their gradients.
"""

import argparse
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from sentencepiece import SentencePieceProcessor
from vigtui.assets.vigogneau import material, tokenizer, voice
from vigtui.assets.vigogneau.examples import Packer, Row
from vigtui.assets.vigogneau.export import CONTEXT, export, save_adapter, save_model

STEPS = {"model": 3500, "doubt": 650, "adapter": 325}


@dataclass(frozen=True, slots=True)
class Job:
    """One training run, named by its stage: `what` is "model", "doubt" (the same model, trained on with more questions
    to decline) or "adapter"; `rows` are those of a step over all processes."""

    what: str
    folder: Path
    steps: int
    rate: float
    matrix_rate: float = 1e-2
    rows: int = 18
    warmup: int = 60
    processes: int = 3
    aside: str | None = None
    declined: float = 0.22
    full: float = 0.15
    seed: int = 1


def fresh_model(vocabulary: int) -> torch.nn.Module:
    """Give an untrained Llama: 4 layers, 256 wide, 768 in the feed-forward, 4 heads, tied embeddings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(
        vocab_size=vocabulary, hidden_size=256, intermediate_size=768, num_hidden_layers=4, num_attention_heads=4,
        max_position_embeddings=CONTEXT, rms_norm_eps=1e-5, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
        pad_token_id=None,
    ))  # fmt: skip


def trained_model(folder: Path) -> torch.nn.Module:
    """Give the model in `folder`/hf, in F32."""
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(folder / "hf", dtype=torch.float32)


def adapted_model(folder: Path) -> torch.nn.Module:
    """Give the trained model with a fresh LoRA adapter on all of its linear layers."""
    from peft import LoraConfig, get_peft_model

    model = trained_model(folder)
    model.name_or_path = "vigogneau-hf"
    return get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))


def batches(packer: Packer, rows: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """Give ids, positions and weights (rows, width), and the mask (rows, 1, width, width) of what each token sees."""
    stream = packer.rows()
    while True:
        taken: list[Row] = list(islice(stream, rows))
        ids, positions, segments, weights = (
            torch.from_numpy(np.stack([getattr(row, name) for row in taken]))
            for name in ("ids", "positions", "segments", "weights")
        )
        same = segments[:, None, :] == segments[:, :, None]
        seen = (same | (segments == 0)[:, None, :]) & torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
        yield ids, positions, weights, seen[:, None]


def loss_of(model: torch.nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Give the weighted cross-entropy of a batch; only the positions that carry weight reach the output layer."""
    ids, positions, weights, seen = batch
    llama = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = llama.model(input_ids=ids, position_ids=positions, attention_mask=seen, use_cache=False).last_hidden_state
    weights = weights[:, 1:]
    told = weights > 0
    logits = llama.lm_head(hidden[:, :-1][told])
    losses = torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:][told], reduction="none")
    return (losses * weights[told]).sum() / weights.sum()


class Steppers:
    """Muon for the matrices of a whole model, of which each process takes its share; AdamW for everything else."""

    def __init__(self, model: torch.nn.Module, job: Job, rank: int) -> None:
        trained = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
        matrices = [
            value for name, value in trained if job.what != "adapter" and value.ndim == 2 and "embed" not in name
        ]
        held = {id(value) for value in matrices}
        others = [value for _name, value in trained if id(value) not in held]
        self.parameters = others + matrices
        self.shares = [matrices[at :: job.processes] for at in range(job.processes)] if matrices else []
        self.all: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, lr=job.rate, betas=(0.9, 0.98), weight_decay=0.01)
        ]
        if matrices:
            muon = torch.optim.Muon(
                self.shares[rank], lr=job.matrix_rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
            )
            self.all.append(muon)
        self.rates = [stepper.param_groups[0]["lr"] for stepper in self.all]

    def step(self, pace: float) -> None:
        """Average the gradients of all processes, clip them, step at `pace` times the full rates."""
        together = dist.is_initialized()
        if together:
            for value, mean in zip(self.parameters, _all_mean([p.grad for p in self.parameters]), strict=True):
                value.grad.copy_(mean)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for stepper, rate in zip(self.all, self.rates, strict=True):
            stepper.param_groups[0]["lr"] = rate * pace
            stepper.step()
        if together:
            for source, share in enumerate(self.shares):
                _broadcast([value.data for value in share], source)
        for value in self.parameters:
            value.grad = None


def _all_mean(values: list[torch.Tensor]) -> list[torch.Tensor]:
    flat = torch.cat([value.flatten() for value in values])
    dist.all_reduce(flat)
    return _apart(flat / dist.get_world_size(), values)


def _broadcast(values: list[torch.Tensor], source: int) -> None:
    flat = torch.cat([value.flatten() for value in values])
    dist.broadcast(flat, source)
    for value, sent in zip(values, _apart(flat, values), strict=True):
        value.copy_(sent)


def _apart(flat: torch.Tensor, like: list[torch.Tensor]) -> list[torch.Tensor]:
    parts = flat.split([value.numel() for value in like])
    return [part.view_as(value) for part, value in zip(parts, like, strict=True)]


def pace(step: int, job: Job) -> float:
    """Give the share of the full learning rate at a step: a linear warm-up, then a cosine down to nothing."""
    if step < job.warmup:
        return (step + 1) / job.warmup
    return 0.5 * (1 + math.cos(math.pi * (step - job.warmup) / (job.steps - job.warmup)))


def work(rank: int, job: Job, meeting: str, device: str) -> None:
    """Train in one of the job's processes; the first one saves the result."""
    torch.set_num_threads(1)
    if job.processes > 1:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=job.processes)
    torch.manual_seed(job.seed)
    pieces = SentencePieceProcessor(model_file=str(job.folder / "hf" / "tokenizer.model"))
    makers: dict[str, Callable[[], torch.nn.Module]] = {
        "model": lambda: fresh_model(pieces.vocab_size()),
        "doubt": lambda: trained_model(job.folder),
        "adapter": lambda: adapted_model(job.folder),
    }
    model = makers[job.what]()
    packer = Packer(
        material.load(job.aside), pieces, seed=1000 * job.seed + rank, full=job.full, declined=job.declined,
        voice=voice.sailor if job.what == "adapter" else None,
    )  # fmt: skip
    descend(model.to(device).train(), packer, job, device, rank)
    if rank == 0:
        (save_adapter if job.what == "adapter" else save_model)(model, job.folder)
    if job.processes > 1:
        dist.destroy_process_group()


def descend(model: torch.nn.Module, packer: Packer, job: Job, device: str, rank: int) -> None:
    """Run the job's steps in bfloat16 autocast; the first process prints the loss now and then."""
    steppers, data = Steppers(model, job, rank), batches(packer, job.rows // job.processes)
    started, running = time.monotonic(), 0.0
    for step in range(job.steps):
        packer.questions.calm = max(0.0, 3 * step / job.steps - 2)
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = loss_of(model, tuple(part.to(device) for part in next(data)))
        loss.backward()
        steppers.step(pace(step, job))
        running += (loss.item() - running) / min(step + 1, 50)
        if rank == 0 and (step + 1) % 50 == 0:
            took = time.monotonic() - started
            print(f"{job.what} {step + 1}/{job.steps} loss {running:.4f} {took:.0f} s", flush=True)


def run(job: Job) -> None:
    """Train in as many processes as the job asks for, or on the GPU where there is one."""
    if torch.cuda.is_available():
        work(0, replace(job, processes=1), "", "cuda")
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["OMP_NUM_THREADS"] = "1"
        meeting = str(Path(folder) / "meeting")
        torch.multiprocessing.spawn(work, args=(job, meeting, "cpu"), nprocs=job.processes)


def main() -> None:
    """Run the stages that the command line names, all of them by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", default=["tokenizer", "model", "doubt", "adapter", "export"])
    parser.add_argument("--folder", type=Path, default=material.HERE, help="where the results go")
    parser.add_argument("--processes", type=int, default=max(1, min(3, os.cpu_count() or 1)))
    parser.add_argument("--scale", type=float, default=1.0, help="share of the steps to take, for a quick try")
    parser.add_argument("--aside", help="phrasing file that is set aside to choose settings on, such as phrasings-4")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    steps = {what: max(1, round(options.scale * count)) for what, count in STEPS.items()}
    common = {
        "folder": options.folder, "processes": options.processes, "aside": options.aside, "seed": options.seed,
        "rows": 6 * options.processes,
    }  # fmt: skip
    jobs = {
        "model": Job("model", steps=steps["model"], rate=3e-3, **common),
        "doubt": Job("doubt", steps=steps["doubt"], rate=1e-3, matrix_rate=3e-3, declined=0.4, **common),
        "adapter": Job("adapter", steps=steps["adapter"], rate=5e-3, **common),
    }
    stages: dict[str, Callable[[], None]] = {
        "tokenizer": lambda: tokenizer.train(material.load(options.aside), options.folder / "hf"),
        **{what: partial(run, job) for what, job in jobs.items()},
        "export": lambda: export(options.folder),
    }
    for stage in options.stages:
        print(stage, flush=True)
        stages[stage]()


if __name__ == "__main__":
    main()
