"""Proof that a product is as good as what it was made from: both read the same texts, one after the other.

The measures are those of llama.cpp's tools/perplexity (perplexity, KL divergence, top-1 agreement). The reference's
distributions wait in a file as float16 logarithms; they are normalized again when read, so that the rounding enters
the divergence in the second order only (about 1e-7 nats).
"""

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ... import backends
from ...backends.base import Backend, Done, Generation, LoadOptions, ModelFiles, Prompt
from ...core import paths
from ...core.errors import CapacityError, FormatError, UsageError
from ...core.i18n import _
from ...core.progress import Progress, silent
from ..sniff import sniff
from .passage import first, predictions, windows
from .report import Report, Score

if TYPE_CHECKING:
    import numpy as np

WINDOW = 512
"""Tokens that a model reads at a time, from an empty context."""
DISK = 256 << 20
"""Bytes that the reference's distributions may take; of a large vocabulary fewer tokens are read."""
_ROWS = 32
"""Positions computed at a time: five arrays of them and the vocabulary in float32 are the memory in use."""
_FEWEST = 64
_WARM, _SPEED, _PROMPT = 8, 64, 100
"""Tokens that are generated to warm up and to be timed, characters of text before them."""
_OVERFLOW = 700.0


@dataclass
class _Reading:
    """One text: windows of ids, and what the reference made of them: its nats in all, its first choices."""

    language: str
    text: str
    ids: list[int]
    cut: list[list[int]]
    nats: float = 0.0
    choices: "list[np.ndarray]" = field(default_factory=list)


def measure(
    product: ModelFiles,
    backend: str,
    reference: ModelFiles,
    reference_backend: str,
    texts: Mapping[str, str],
    *,
    adapters: Sequence[tuple[Path, float]] = (),
    tokens: int = 2048,
    threads: int | None = None,
    progress: Progress = silent,
) -> Report:
    """Compare `product` with `reference`, to which `adapters` (file or folder, scale) apply, on `texts` by language.

    At most `tokens` of each text are read, fewer where the vocabulary is large. Both are loaded in this process, one
    after the other. Raises FormatError when they have different vocabularies or the reference gives no numbers,
    UsageError for texts that are empty, and what a backend raises.
    """
    folder = paths.cache()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        with _loaded(reference, reference_backend, threads, progress) as engine:
            engine.adapt(adapters)
            readings = _readings(engine, texts, tokens)
            width = _record(engine, readings, file, reference, progress)
        file.seek(0)
        with _loaded(product, backend, threads, progress) as engine:
            scores = {
                one.language: _compare(engine, one, file, width, product, done)
                for one, done in _counted(readings, _("read with the product"), progress)
            }
            sane = all(score.perplexity is not None for score in scores.values())
            speed = _speed(engine, readings[0].text) if sane else None
    size, reference_size = sniff(product.path).size, sniff(reference.path).size
    return Report(product.name, reference.name, backend, reference_backend, scores, size, reference_size, speed)


@contextmanager
def _loaded(model: ModelFiles, backend: str, threads: int | None, progress: Progress) -> Iterator[Backend]:
    engine = backends.create(backend, in_process=True)
    try:
        engine.load(model, LoadOptions(context=WINDOW + 1, threads=threads), progress)
        yield engine
    finally:
        engine.close()


def _readings(engine: Backend, texts: Mapping[str, str], tokens: int) -> list[_Reading]:
    """Cut each text into windows, as many as the disk has room for."""
    assert engine.info is not None
    info = engine.info
    most = max(_FEWEST, min(tokens, DISK // (2 * info.vocabulary * max(1, len(texts)))))
    found: list[_Reading] = []
    for language, text in texts.items():
        ids = _ids(engine, text)
        cut = first(windows(ids, min(WINDOW, info.trained_context or WINDOW), info.adds_bos), most)
        found.append(_Reading(language, text, ids, cut))
    if not found or not all(one.cut for one in found):
        raise UsageError(_("There is no text to measure the quality with."), _("Give a text of some pages."))
    return found


def _ids(engine: Backend, text: str) -> list[int]:
    return engine.tokenize(Prompt(((text, False),)))


def _counted(readings: list[_Reading], stage: str, progress: Progress) -> Iterator[tuple[_Reading, Progress]]:
    """Give each reading with a progress that counts the tokens of all."""
    total, before = sum(predictions(one.cut) for one in readings), 0
    for one in readings:
        yield one, lambda _stage, done, _total, before=before: progress(stage, before + done, total)
        before += predictions(one.cut)
    progress(stage, total, total)


def _record(engine: Backend, readings: list[_Reading], file: IO[bytes], model: ModelFiles, progress: Progress) -> int:
    """Write the reference's distributions to `file`, float16 logarithms row by row; give the width of a row."""
    import numpy as np  # only for measurements

    width = 0
    for one, done in _counted(readings, _("read with the reference"), progress):
        for logits, targets in _blocks(engine, one, done):
            if not np.isfinite(logits).all():
                raise FormatError(
                    _("The reference {name} computes values that are no numbers.").format(name=model.name),
                    _("Its weights are damaged, or too large for their type: fetch or convert it again."),
                )
            logs = _log_softmax(logits)
            width = logs.shape[1]
            one.nats -= float(logs[np.arange(len(targets)), targets].sum(dtype=np.float64))
            one.choices.append(logits.argmax(1))
            _keep(file, np.maximum(logs, -65000.0).astype(np.float16))
    return width


def _keep(file: IO[bytes], logs: "np.ndarray") -> None:
    try:
        file.write(logs.tobytes())
        file.flush()
    except OSError as error:
        raise CapacityError(
            _("The distributions of the reference cannot be kept in {path}: {reason}.").format(
                path=paths.cache(), reason=error.strerror
            ),
            _("Free some space there."),
        ) from error


def _compare(
    engine: Backend, one: _Reading, file: IO[bytes], width: int, model: ModelFiles, progress: Progress
) -> Score:
    """Read a text with the product, beside what the reference wrote."""
    import numpy as np

    if _ids(engine, one.text) != one.ids:
        raise FormatError(
            _("{name} and its reference cut a text into different tokens: they cannot be compared.").format(
                name=model.name
            ),
            _("Compare models of the same vocabulary."),
        )
    count = predictions(one.cut)
    reference = math.exp(min(one.nats / count, _OVERFLOW))
    nats, divergence, same, sane = 0.0, 0.0, 0, True
    choices = np.concatenate(one.choices)
    read = 0
    for logits, targets in _blocks(engine, one, progress):
        rows = len(targets)
        stored = np.frombuffer(file.read(2 * width * rows), np.float16).reshape(rows, width)
        sane = sane and bool(np.isfinite(logits).all())
        if sane:
            nats -= float(_log_softmax(logits)[np.arange(rows), targets].sum(dtype=np.float64))
            divergence += _divergence(stored, logits)
            same += int((logits.argmax(1) == choices[read : read + rows]).sum())
        read += rows
    if not sane:
        return Score(count, reference)
    perplexity = math.exp(min(nats / count, _OVERFLOW))
    return Score(count, reference, perplexity, max(0.0, divergence / count), same / count)


def _blocks(engine: Backend, one: _Reading, progress: Progress) -> "Iterator[tuple[np.ndarray, np.ndarray]]":
    """Yield logits (n, n_vocab) and the tokens that really came next (n,), a few positions at a time."""
    import numpy as np

    done = 0
    for window in one.cut:
        rows = engine.score(window)
        for start in range(0, len(window) - 1, _ROWS):
            targets = np.array(window[start + 1 : start + 1 + _ROWS])
            yield np.stack(list(islice(rows, len(targets)))), targets
            done += len(targets)
            progress("", done, 0)
        for _rest in rows:  # a backend cleans up at the end
            pass


def _log_softmax(logits: "np.ndarray") -> "np.ndarray":
    import numpy as np

    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True, dtype=np.float64)).astype(np.float32)


def _divergence(stored: "np.ndarray", logits: "np.ndarray") -> float:
    """Sum KL(reference ‖ product) over the rows, on the tokens that both know."""
    import numpy as np

    common = min(stored.shape[1], logits.shape[1])
    ours, theirs = _log_softmax(logits[:, :common]), _log_softmax(stored[:, :common].astype(np.float32))
    return float((np.exp(theirs) * (theirs - ours)).sum(dtype=np.float64))


def _speed(engine: Backend, text: str) -> float | None:
    """Give the tokens a second of a greedy answer, without its prefill."""
    done = None
    for count in (_WARM, _SPEED):
        greedy = Generation(temperature=0.0, repetition_penalty=1.0, max_tokens=count, min_tokens=count)
        for event in engine.stream(Prompt(((text[:_PROMPT], False),)), greedy, lambda: False):
            done = event if isinstance(event, Done) else done
    return done.completion_tokens / done.decode_s if done and done.decode_s > 0 else None
