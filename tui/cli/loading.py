"""A model loaded for a conversation, with its adapters: who answers."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...backends.base import Backend, Generation, LoadOptions, ModelInfo
from ...chat.prepare import Source
from ...registry import open as opening
from ...registry.builtin import EMBEDDED
from ...registry.hashes import fingerprint
from ...registry.record import Record
from .models import lasting
from .output import Meter
from .wish import Wish


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter by what means it tomorrow too, its name or its whole path, and its scale."""

    ref: str
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Model:
    """An engine with `record` and `adapters` in it, which took `load_s` seconds; `source` stamps its answers."""

    record: Record
    engine: Backend
    info: ModelInfo
    source: Source
    adapters: tuple[Adapter, ...]
    load_s: float

    @property
    def embedded(self) -> bool:
        """Whether it is the embedded guide."""
        return self.record.ref == EMBEDDED


def load(record: Record, wish: Wish, adapters: Sequence[Adapter] = (), trust: opening.Trust = opening.nobody) -> Model:
    """Give `record` loaded as the flags say; `trust` is asked where it needs the code that comes with it.

    Raises what `registry.open` and the engine raise.
    """

    def attempt(loading: LoadOptions) -> Model:
        return _load(record, replace(wish, loading=loading), adapters)

    return opening.trusting(attempt, record, wish.loading, trust)


def _load(record: Record, wish: Wish, adapters: Sequence[Adapter]) -> Model:
    with Meter() as meter:
        backend = opening.backend_for(record, wish.backend)
        files = [opening.adapter(f"{one.ref}={one.scale}", record, meter, backend) for one in adapters]
        # The echo engine opens no file, so that there need not be one.
        digest = fingerprint(record, meter) if record.files and backend != "echo" else ""
        began = time.perf_counter()
        engine = opening.open(record, wish.loading, wish.backend, meter, force=wish.force)
    try:
        if files:
            engine.adapt(files)
    except BaseException:
        engine.close()
        raise
    assert engine.info is not None
    named = tuple((one.ref, one.scale) for one in adapters)
    source = Source(record.ref, digest, record.format, Generation(**record.generation), named)
    return Model(record, engine, engine.info, source, tuple(adapters), time.perf_counter() - began)


def adapters_of(refs: Sequence[str]) -> tuple[Adapter, ...]:
    """Give the adapters that `--lora REF[=SCALE]` names. Raises NotFoundError, UsageError or FormatError."""
    found = [opening.scaled(ref) for ref in refs]
    return tuple(Adapter(lasting(opening.resolve(name)), scale) for name, scale in found)
