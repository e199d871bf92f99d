"""From an order to checked, registered models: every stage in a process of its own, each found again when it is done.

kill -9 at any moment leaves the registry valid and lists nothing half-made; the same order goes on from the last
finished stage (journal.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...backends.base import Stop
from ...core.errors import BackendError, CapacityError, ContextError, FormatError, UsageError
from ...core.i18n import _
from .. import pull
from ..record import Record
from . import job, journal, plan, product, proof
from .ends import End
from .order import Order
from .plan import Plan, Product
from .product import Garbage
from .proof import Probe
from .reference import backend, usable
from .stage import Stage, ancestry
from .step import Meter, Observe, Step, named

__all__ = ["Observe", "Step", "never", "run"]


def never() -> bool:
    """Never stop."""
    return False


def run(
    order: Order, probe: Probe | None = None, observe: Observe = lambda _step: None, stop: Stop = never
) -> list[Record]:
    """Carry out `order` and give the models, registered; `probe` asks each a question before.

    Raises Paused when `stop` says so, Garbage when a product failed its proof (the others are registered),
    CapacityError unless the order is forced, and what preparing, pulling and the stages raise.
    """
    meter = Meter(observe, stop)
    prepared = _prepared(order, meter)
    if prepared.pulls:
        for sentence in prepared.notices:
            meter.begin(replace(named("pull"), label=sentence), 0, 0, "notice")
        for number, one in enumerate(prepared.pulls, 1):
            pull.fetch(one, meter.pulling(number, len(prepared.pulls)), stop)
        prepared = _prepared(order, meter)
    return _Run(prepared, probe, meter, stop).perform()


def _prepared(order: Order, meter: "Meter") -> Plan:
    meter.begin(named("hash"), 0, 0)
    prepared = plan.prepare(order, meter.progress)
    if not order.force:
        plan.require(prepared)
    return prepared


@dataclass
class _Run:
    """One run of a plan: the products that are not registered yet, and what each stage gave."""

    plan: Plan
    probe: Probe | None
    meter: Meter
    stop: Stop
    pending: list[Product] = field(default_factory=list)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    locks: Sequence[int] = ()

    def perform(self) -> list[Record]:
        others = named("wait")

        def waiting() -> None:
            self.meter.begin(others, 0, 0, "wait")

        with journal.held([stage.key for stage in self.plan.made], self.stop, waiting) as locks:
            self.locks = locks
            journal.sweep()
            made, failures = self._products()
            self._clear()
        if failures:
            raise product.together(failures, made)
        return made

    def _products(self) -> tuple[list[Record], list[Garbage]]:
        """Make, check and register every product; another process may have made some in the meantime."""
        known = {one.record.ref: plan.known(one.record, one.end) for one in self.plan.products}
        wanted = [one for one in self.plan.products if not known[one.record.ref]]
        for ref in (ref for ref, record in known.items() if record):
            self.meter.begin(replace(named("register"), label=ref), 0, 0, "found")
        for one in wanted:
            journal.release(one.end.made)
        self.pending, failures = list(wanted), list[Garbage]()
        self._stages([one.end.made for one in wanted])
        for one in wanted:
            try:
                known[one.record.ref] = self._proved(one)
                self.pending.remove(one)
            except Garbage as error:
                failures.append(error)
        return [record for record in known.values() if record], failures

    def _stages(self, goals: Sequence[Stage]) -> None:
        """Do what is left on the way to `goals`, each stage in its own process."""
        todo = ancestry(goals, self._finished)
        for at, stage in enumerate(todo, 1):
            self.meter.begin(stage, at, len(todo))
            journal.begin(stage)
            done = job.perform(stage, self.meter.progress, self.stop, self.locks)
            journal.finish(stage, self._told(stage, done))
            self._finished(stage)
            self.meter.change("done")
            self._thin()

    def _finished(self, stage: Stage) -> bool:
        result = journal.result(stage)
        if result is not None:
            self.results[stage.key] = result
        return result is not None

    def _told(self, stage: Stage, result: dict[str, Any]) -> dict[str, Any]:
        """Give the result with the notices of the stages before, which may be gone when somebody asks."""
        earlier = [said for need in stage.needs for said in self.results.get(need.key, {}).get("notices", ())]
        said = (*(earlier if stage.work != "measure" else ()), *result.get("notices", ()))
        return {**result, "notices": list(dict.fromkeys(said))}

    def _thin(self) -> None:
        """Delete the outputs that nothing will read any more."""
        if self.plan.order.keep:
            return
        made = [one.end.made for one in self.pending]
        left = ancestry([*made, *(one.end.check for one in self.pending if one.end.check)], self._finished)
        read = {stage.key for stage in made} | {need.key for stage in left for need in stage.needs}
        for stage in self.plan.made:
            if stage.path and stage.key not in read:
                journal.drop(stage)

    def _proved(self, one: Product) -> Record:
        """Check a product, ask it, and register it."""
        end, lies = one.end, journal.place(one.end.made)
        assert lies is not None
        if end.kind == "meta":
            return replace(one.record, files=product.files(product.place(end.made, one.goal)))
        result = self.results[end.made.key]
        record = product.described(one.record, lies, [*self._known(end), *result.get("notices", ())])
        report, why = self._measured(end, record, lies)
        trial, reason = self._tried(record, lies)
        made_with = product.made_with(self.plan.order, self.plan.source, end, result)
        made_with |= {"report": report} if report else {}
        made_with |= {"trial": dict(trial.values())} if trial else {}
        record = product.described(one.record, product.place(end.made, one.goal), [*record.notices, *why, *reason])
        self.meter.begin(named("register"), 0, 0)
        return product.publish(replace(record, made_with=made_with), self.meter.progress)

    def _known(self, end: End) -> list[str]:
        """Give what was known of a product before the work."""
        others = {said for one in self.plan.products for said in one.end.notices}
        return [*(said for said in self.plan.notices if said not in others), *end.notices]

    def _measured(self, end: End, record: Record, lies: Path) -> tuple[dict[str, Any] | None, list[str]]:
        """Give the quality report of a product, or why there is none. Raises Garbage."""
        if end.check is None:
            return None, []
        try:
            self._stages([end.check])
        except (FormatError, UsageError) as error:  # it cannot be compared; whether it answers is still to be seen
            return None, [_("There is no quality report: {reason}").format(reason=error.message)]
        result = self.results[end.check.key]
        if result["garbage"]:
            raise product.garbage(record, lies, result["garbage"])
        return result["report"], []

    def _tried(self, record: Record, lies: Path) -> tuple[proof.Trial | None, list[str]]:
        """Ask the product; give its answer, or why there is none."""
        if self.probe is None or record.kind == "adapter":
            return None, []
        if not usable(backend(record.kind)):
            return None, [_("It was not tried: this needs the {backend} backend.").format(backend=backend(record.kind))]
        self.meter.begin(named("try"), 0, 0)
        order = self.plan.order
        try:
            trial = proof.trial(record, self.probe, self.stop, self.meter.progress, order.threads, order.force)
        except (CapacityError, ContextError) as error:
            return None, [_("It was not tried: {reason}").format(reason=error.message)]
        except (BackendError, FormatError) as error:
            raise product.garbage(record, lies, error.message) from error
        if self.stop():
            raise job.stopped()
        if trial.problem:
            raise product.garbage(record, lies, trial.problem)
        return trial, []

    def _clear(self) -> None:
        """Delete what is left of the work, or keep it on purpose; a product that failed stays to be looked at."""
        products = {one.end.made.key for one in self.plan.products}
        failed = {one.end.made.key for one in self.pending}
        for stage in self.plan.made:
            if self.plan.order.keep and stage.key not in products and stage.path and journal.place(stage):
                journal.keep(stage)
                self.meter.begin(replace(stage, label=str(stage.path)), 0, 0, "kept")
            elif stage.key not in failed:
                journal.drop(stage)
