"""The decode loop of the PyTorch engines: one token at a time, greedy or sampled."""

from collections.abc import Generator
from typing import TYPE_CHECKING

from .base import Event, FinishReason, Generation, Stop, Text
from .runner import Runner
from .sampling import Sampler, ending
from .text import TextStream
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch


def decode(
    runner: Runner,
    vocabulary: Vocabulary,
    sampler: Sampler,
    logits: "torch.Tensor",
    generation: Generation,
    stop: Stop,
) -> Generator[Event, None, tuple[int, FinishReason]]:
    """Generate an answer to the prompt that gave `logits`; give its length in tokens and why it ended."""
    out, piece = TextStream(generation.stop or ()), vocabulary.piece
    ends = frozenset(ending(vocabulary, generation))
    count, shown = 0, 0
    finish: FinishReason = "length"
    while count < sampler.limit:
        token = sampler.sample(logits)
        count += 1
        if token in ends:
            finish = "stop"
            break
        if delta := out.feed(piece(token)):
            yield Text(delta, count - shown)
            shown = count
        if out.stopped:
            return count, "stop"
        if stop():
            finish = "cancelled"
            break
        if count < sampler.limit:
            logits = runner.step(token)
    if rest := out.finish():
        yield Text(rest, count - shown)
    return count, "stop" if out.stopped else finish
