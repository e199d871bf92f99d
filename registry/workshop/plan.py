"""What an order will take, before anything is made: the stages, their bytes, the room for them, and every refusal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core import paths
from ...core.errors import CapacityError, NotFoundError, UsageError
from ...core.i18n import _
from ...core.progress import Progress, silent
from .. import hub, memory
from .. import order as pulling
from ..record import Record
from ..store import Registry
from . import journal, product, source
from . import stage as stages
from .chain import Chain
from .ends import End, ends
from .order import Order
from .source import Source
from .stage import Stage, ancestry


@dataclass(frozen=True, slots=True)
class Product:
    """What will be made: the record as far as it is known, how, where it will lie; `here` when it is there already."""

    record: Record
    end: End
    goal: Path
    here: Record | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The work for one order. `stages` are those still to be done, in order; sizes are estimates, in bytes.

    `pulls` come first, and until they are here the stages are only foreseen. `disk` is the most that the work takes
    at one moment beside the pulls, `memory` what its largest stage takes; None of what is free is not known.
    """

    order: Order
    source: Source
    adapters: tuple[Source, ...]
    pulls: tuple[pulling.Order, ...]
    products: tuple[Product, ...]
    stages: tuple[Stage, ...]
    disk: int
    free_disk: int | None
    memory: int
    free_memory: int | None
    notices: tuple[str, ...] = ()

    @property
    def fetch(self) -> int:
        """Bytes that are still to be pulled."""
        return sum(pull.missing for pull in self.pulls)

    @property
    def made(self) -> list[Stage]:
        """Every stage behind the products, done or not."""
        return ancestry(_goals(one.end for one in self.products))

    @property
    def fits(self) -> bool:
        """Whether the disk and the memory have room for it."""
        return not any(_lacks(self)) and (self.free_memory is None or self.memory <= self.free_memory)


def prepare(order: Order, progress: Progress = silent) -> Plan:
    """Give what `order` will take. Asks the hub where something must be pulled, reads hashes, makes nothing.

    Raises UsageError, NotFoundError, NetworkError or FormatError for what cannot be done.
    """
    base = source.find(order.source, _kinds(order))
    adapters = [(source.find(ref, ("adapter",)), scale) for ref, scale in order.adapters]
    _refuse_adapters(order, base, [one for one, _scale in adapters])
    product.refuse_output(order, [base, *(one for one, _scale in adapters)])
    pulls = [one.pull for one in (base, *(one for one, _scale in adapters)) if one.pull]
    size, held, notices = (None, 0, ()) if pulls else _surveyed(order, base, adapters)
    beside = [(one, source.content(one, progress), scale) for one, scale in adapters]
    if base.kind == "adapter":
        beside = [(one, source.content(one, progress), 1.0) for one in _base_of(order, base)]
    made = Chain(order, base, source.content(base, progress), beside, size, held)
    products = [_product(order, base, [one for one, _scale in adapters], end) for end in ends(made)]
    return _weighed(order, base, [one for one, _scale in adapters], pulls, products, notices)


def _kinds(order: Order) -> tuple[str, ...]:
    """Give the kinds of record that the work starts from, the best first."""
    if order.work in ("merge", "gptq"):
        return ("safetensors",)
    return ("safetensors", "gguf") if order.work == "quantize" else ("safetensors", "adapter")


def _refuse_adapters(order: Order, base: Source, adapters: Sequence[Source]) -> None:
    """Refuse an adapter for a base, and a base for an adapter."""
    if base.kind == "adapter" and order.work != "convert":
        raise UsageError(
            _("{name} is an adapter, not a whole model.").format(name=base.record.ref),
            _("Merge it with its base model: vigtui merge BASE --lora {name}").format(name=base.record.ref),
        )
    for one in adapters:
        if one.kind != "adapter":
            raise source.whole(one.record.ref)


def _base_of(order: Order, adapter: Source) -> Iterator[Source]:
    """Give the model that an adapter is for: the one of --base, else the one it names, where that is known here."""
    if order.base:
        yield source.find(order.base)
        return
    for name in adapter.record.parents:
        try:
            yield source.of(Registry().find(name))
            return
        except NotFoundError:
            continue


def _surveyed(
    order: Order, base: Source, adapters: Sequence[tuple[Source, float]]
) -> tuple[int | None, int, Sequence[str]]:
    """Compare base and adapters before anything is written; give the bytes that the merge writes and holds."""
    if order.work != "merge" or base.kind == "meta":
        return None, 0, ()
    from ..merge.merge import survey

    found = survey(base.path, [(one.path, scale) for one, scale in adapters], order.alpha)
    return found.size, found.memory, found.notices


def _product(order: Order, base: Source, adapters: Sequence[Source], end: End) -> Product:
    record = product.announced(order, base, adapters, end)
    here = known(record, end)
    goal = product.target(order, record, end)
    if here and order.output and here.path.resolve() != goal.resolve():
        raise UsageError(
            _("{name} is here already: {path}.").format(name=here.ref, path=here.path),
            _("Copy it, or make another with --name."),
        )
    if not here and goal.exists() and journal.place(end.made) != goal:
        raise UsageError(_("{path} is there already.").format(path=goal), _("Give another --output."))
    if not here:
        product.require_writable(goal)
    return Product(record, end, goal, here)


def known(record: Record, end: End) -> Record | None:
    """Give the very same product where it is registered; Meta's checkpoints are not. Raises UsageError for a clash."""
    return product.here(record) if end.kind != "meta" else None


def _weighed(
    order: Order,
    base: Source,
    adapters: Sequence[Source],
    pulls: Sequence[pulling.Order],
    products: Sequence[Product],
    notices: Sequence[str],
) -> Plan:
    wanted = [one.end for one in products if not one.here]
    todo = ancestry(_goals(wanted), lambda stage: journal.result(stage) is not None)
    sources = [one for pull in pulls for one in (*pull.notices, _licence(pull.record))]
    said = dict.fromkeys((*notices, *sources, *(sentence for one in products for sentence in one.end.notices)))
    return Plan(
        order,
        base,
        tuple(adapters),
        tuple(pulls),
        tuple(products),
        tuple(todo),
        _peak(todo, wanted),
        memory.disk(stages.home()),
        max((stage.memory for stage in todo), default=0),
        memory.available(),
        tuple(filter(None, said)),
    )


def _licence(record: Record) -> str:
    return _("Licence of {name}: {licence}.").format(name=record.ref, licence=record.licence) if record.licence else ""


def _goals(ends: Iterator[End] | Sequence[End]) -> list[Stage]:
    """Give what must be done for the products, all of them before the first check."""
    listed = list(ends)
    return [*(end.made for end in listed), *(end.check for end in listed if end.check)]


def _peak(todo: Sequence[Stage], ends: Sequence[End]) -> int:
    """Give the most bytes that lie on the disk at one moment: what no later stage reads goes at once."""
    made, most, live = {end.made.key for end in ends}, 0, dict[str, int]()
    for at, stage in enumerate(todo):
        live[stage.key] = stage.size
        most = max(most, sum(live.values()))
        read = {need.key for later in todo[at + 1 :] for need in later.needs} | made
        live = {key: size for key, size in live.items() if key in read}
    return most


def _lacks(plan: Plan) -> Iterator[tuple[int, int]]:
    """Give need and free bytes of every disk that is too small: the hub's cache, ours, and that of the products."""
    outputs = sum(one.end.made.size for one in plan.products if not one.here)
    goal = plan.products[0].goal.parent if plan.products else paths.models()
    needs: dict[int, tuple[Path, int]] = {}
    for folder, size in ((stages.home(), plan.disk), (hub.cache(), plan.fetch), (goal, outputs)):
        device = _device(folder)
        if folder == goal and device == _device(stages.home()):
            continue  # a product is renamed into its place
        needs[device] = (folder, needs.get(device, (folder, 0))[1] + size)
    for folder, need in needs.values():
        if need > (free := memory.disk(folder)):
            yield need, free


def _device(folder: Path) -> int:
    return next(one for one in (folder, *folder.parents) if one.exists()).stat().st_dev


def require(plan: Plan) -> None:
    """Raise CapacityError when the disk or the memory is too small for the work."""
    for need, free in _lacks(plan):
        raise CapacityError(
            _("The work needs {size} MB of disk, and only {free} MB are free.").format(
                size=need >> 20, free=free >> 20
            ),
            _make_room(),
        )
    if plan.free_memory is not None and plan.memory > plan.free_memory:
        largest = max(plan.stages, key=lambda stage: stage.memory)
        check = largest.work == "measure"
        raise CapacityError(
            _("“{stage}” takes {size} MB of memory, and only {free} MB are free.").format(
                stage=largest.title, size=plan.memory >> 20, free=plan.free_memory >> 20
            ),
            _("Leave the report out with --no-check, or close other programs; --force tries all the same.")
            if check
            else _("Close other programs; --force tries all the same."),
        )


def _make_room() -> str:
    if left := journal.unfinished() >> 20:
        text = _("Make room: unfinished work takes {size} MB at {path}; --force tries all the same.")
        return text.format(size=left, path=stages.home())
    return _("Make room; --force tries all the same.")
