"""The models that are served: loaded when first asked for, given back when nobody asks any more."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..backends import backend_class
from ..backends.base import Backend, LoadOptions
from ..chat import formats
from ..core.errors import BackendError, UsageError
from ..core.i18n import _
from ..registry import open as opening
from ..registry.check import check
from ..registry.record import Record
from .fault import Fault
from .metric import Metrics


@dataclass(frozen=True, slots=True)
class Served:
    """A model that is served, with the backend that runs it, its adapters (GGUF or PEFT, scale), and the prompt
    format to use instead of its own."""

    record: Record
    backend: str
    adapters: tuple[tuple[Path, float], ...] = ()
    form: str | None = None

    @property
    def supports(self) -> frozenset[str]:
        """What its backend honours."""
        return backend_class(self.backend).supports


def serve(
    names: Sequence[str], lora: Sequence[str] = (), backend: str | None = None, form: str | None = None
) -> list[Served]:
    """Give the models to serve: those named, or the default one. Raises what resolving them raises, and UsageError
    or BackendError for one that cannot run here."""
    records = [opening.resolve(name) for name in dict.fromkeys(names)] or [opening.resolve(None)]
    if lora and len(records) > 1:
        raise UsageError(_("An adapter goes with one model."), _("Serve that model alone."))
    if form and form != formats.OWN:
        formats.get(form)
    return [_served(record, lora, backend, form) for record in {one.ref: one for one in records}.values()]


def _served(record: Record, lora: Sequence[str], backend: str | None, form: str | None) -> Served:
    if record.kind == "remote":
        raise UsageError(
            _("{name} is on a server already.").format(name=record.ref), _("Give its address to your clients.")
        )
    name = opening.backend_for(record, backend)
    if missing := backend_class(name).unavailable():
        raise BackendError(missing)
    if name != "echo":
        check(record.path)
    return Served(record, name, tuple(opening.adapter(ref, record, backend=name) for ref in lora), form)


@dataclass
class Pool:
    """The engines of `models`. `keep_alive` is in seconds, None keeps them for ever."""

    models: Sequence[Served]
    loading: LoadOptions
    metrics: Metrics
    keep_alive: float | None = 300.0
    force: bool = False
    _engines: dict[str, Backend] = field(default_factory=dict)
    _used: dict[str, float] = field(default_factory=dict)
    _busy: set[str] = field(default_factory=set)

    def find(self, name: str | None) -> Served:
        """Give the model that a request names: by its whole name, its name without tag, or none for the first."""
        if not name:
            return self.models[0]
        for match in (lambda one: one.record.ref == name, lambda one: one.record.name == name):
            found = [one for one in self.models if match(one)]
            if len(found) == 1:
                return found[0]
        known = ", ".join(one.record.ref for one in self.models)
        text = _("There is no model {name} here. There are: {names}.").format(name=name[:200], names=known)
        raise Fault(404, text, "model", "model_not_found")

    @asynccontextmanager
    async def use(self, model: Served) -> AsyncIterator[Backend]:
        """Give the engine of `model`, loaded if need be; it stays as long as it is used. One user at a time."""
        ref = model.record.ref
        self._busy.add(ref)
        try:
            if ref not in self._engines:
                self._engines[ref] = await asyncio.to_thread(self._load, model)
                self.metrics.models = len(self._engines)
            yield self._engines[ref]
        finally:
            self._busy.discard(ref)
            self._used[ref] = time.monotonic()

    def _load(self, model: Served) -> Backend:
        if self._engines and not self._fits(model):
            for ref in [*self._engines]:
                self._drop(ref)
        engine = opening.open(model.record, self.loading, model.backend, force=self.force)
        try:
            if model.adapters:
                engine.adapt(model.adapters)
        except BaseException:
            engine.close()
            raise
        return engine

    def _fits(self, model: Served) -> bool:
        """Whether there is room for it beside those that are loaded."""
        if model.backend == "echo":
            return True
        return opening.needs(model.record.ref, check(model.record.path), self.loading).fits_memory

    def _drop(self, ref: str) -> None:
        if engine := self._taken(ref):
            engine.close()

    def _taken(self, ref: str) -> Backend | None:
        engine = self._engines.pop(ref, None)
        self.metrics.models = len(self._engines)
        return engine

    async def watch(self) -> None:
        """Give back the engines that nobody asked for during `keep_alive`, for ever."""
        while self.keep_alive is not None:
            await asyncio.sleep(min(1.0, self.keep_alive / 4 + 0.01))
            old = time.monotonic() - self.keep_alive
            for ref in [*self._engines]:
                # Looked at only now, and taken away at once: somebody may ask for it while another one ends.
                idle = ref not in self._busy and self._used.get(ref, old) <= old
                if idle and (engine := self._taken(ref)):
                    await asyncio.to_thread(engine.close)

    def close(self) -> None:
        """Give back everything."""
        for ref in [*self._engines]:
            self._drop(ref)
