"""The decode loop of the PyTorch engines: one token at a time, greedy or sampled."""

from collections.abc import Generator
from typing import TYPE_CHECKING

from .base import Chosen, Event, FinishReason, Generation, Stop, Text
from .runner import Runner
from .sampling import Sampler, ending
from .text import TextStream
from .vocabulary import Vocabulary
from .weigh import weigh

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
    count, shown, wanted = 0, 0, generation.logprobs
    chosen: list[Chosen] = []
    finish: FinishReason = "length"
    while count < sampler.limit:
        token = sampler.sample(logits)
        count += 1
        if token in ends:
            finish = "stop"
            break
        if wanted:
            chosen.append(weigh(logits[0].cpu().numpy(), token, wanted, vocabulary.shown))
        if delta := out.feed(piece(token)):
            yield Text(delta, count - shown, tuple(chosen) or None)
            shown, chosen = count, []
        if out.stopped:
            return count, "stop"
        if stop():
            finish = "cancelled"
            break
        if count < sampler.limit:
            logits = runner.step(token)
    if (rest := out.finish()) or (chosen and not out.stopped):
        yield Text(rest, count - shown, tuple(chosen) or None)
    return count, "stop" if out.stopped else finish
