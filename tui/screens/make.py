"""What the workshop shall make: source, product, options, and what it takes."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, HorizontalGroup, Vertical, VerticalScroll
from textual.message import Message
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Button, Checkbox, Input, Select, Static

from ...core.errors import UsageError, VigtuiError
from ...core.i18n import _
from ...core.text import line
from ...registry.open import scaled
from ...registry.workshop import plan as planning
from ...registry.workshop.order import Order, Packing, Quantizing
from ...registry.workshop.plan import Plan
from ..cli.output import size
from ..desk import Desk
from ..key import N_
from .dialog import Dialog
from .picker import Item, Picker

PAUSE = 0.4
"""Seconds without a key before the plan is made anew."""
USED = {
    "merge": ("source", "adapter", "types", "calibration", "name"),
    "quantize": ("source", "types", "calibration", "name"),
    "gptq": ("source", "bits", "group", "order", "calibration", "samples", "name"),
    "convert": ("source", "type", "name"),
}
"""Work → the fields that it has."""


def references(text: str) -> list[str]:
    """Give the adapters that `text` names, with spaces between; a path that holds some is alone, or in quotes."""
    name, _equals, scale = text.rpartition("=")
    if any(one and Path(one).expanduser().exists() for one in (text, "" if " " in scale else name)):
        return [text]
    try:
        return shlex.split(text)
    except ValueError:  # a quotation mark that nothing closes: an apostrophe
        return text.split()


class MakeScreen(Dialog[tuple[str, Order]]):
    """Gives the names of the products and the order for them; Esc gives None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "start", N_("Start"), priority=True),
        Binding("f2", "choose", N_("Choose"), priority=True),
        Binding("up", "app.focus_previous", show=False),
        Binding("down", "app.focus_next", show=False),
    ]

    @dataclass
    class Foreseen(Message):
        """What the order of the fields takes, or why it cannot be; `serial` tells an old answer from the newest."""

        serial: int
        plan: Plan | None
        error: Exception | None = None

    def __init__(self, desk: Desk) -> None:
        super().__init__("make")
        self.desk = desk
        self.plan: Plan | None = None
        self.shown = ""
        self._serial = 0
        self._typing: Timer | None = None

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = _("Make a model")
            yield Select([(title, key) for key, title in works().items()], allow_blank=False, compact=True, id="work")
            yield Static("", classes="hint about-work", markup=False)
            with VerticalScroll(classes="rows", can_focus=False):
                for name, title in fields().items():
                    with HorizontalGroup(classes="row", id=f"row-{name}"):
                        yield Static(title, classes="name", markup=False)
                        yield self._field(name)
            yield Static("", classes="about-type", markup=False)
            with VerticalScroll(classes="plan-text", can_focus=False):
                yield Static("", id="plan", markup=False)
            yield Static("", classes="complaint", markup=False)
            with Horizontal(classes="buttons"):
                yield Button(_("Choose …"), id="choose", compact=True)
                yield Button(_("Cancel"), id="no", compact=True)
                yield Button(_("Start"), id="yes", variant="primary", compact=True)

    def _field(self, name: str) -> Widget:
        choices: dict[str, list[tuple[str, str]]] = {
            "bits": [(f"{bits} bits", str(bits)) for bits in (4, 8, 3, 2)],
            "group": [("128", "128"), ("64", "64"), ("32", "32"), (_("one for a whole row"), "-1")],
            "calibration": [
                (_("as usual"), ""), (_("French and English"), "mixed"), (_("French"), "fr"), (_("English"), "en"),
            ],
            "type": [(text, text) for text in ("f16", "bf16", "f32", "q8_0")],
        }  # fmt: skip
        if name == "order":
            return Checkbox(_("the weightiest columns first: better, slower on old kernels"), id=name, compact=True)
        if name in choices:
            return Select(choices[name], allow_blank=False, compact=True, id=name)
        given = {"types": "Q4_K_M", "samples": "128", "source": self._suggested()}
        hints = {
            "source": _("a model, a folder, ORG/REPO or hf://…"),
            "adapter": _("NAME or folder, =SCALE where it is not 1; several with spaces"),
            "name": _("chosen by itself"),
        }
        return Input(given.get(name, ""), placeholder=hints.get(name, ""), id=name, compact=True)

    def _suggested(self) -> str:
        return next((one.ref for one in self.desk.models()[0] if one.kind == "safetensors"), "")

    def on_mount(self) -> None:
        self._arrange()
        self.query_one("#work").focus()

    # What is typed and chosen

    @property
    def kind(self) -> str:
        """The work chosen."""
        return str(self.query_one("#work", Select).value)

    def _text(self, name: str) -> str:
        return self.query_one(f"#{name}", Input).value.strip()

    def _choice(self, name: str) -> str:
        return str(self.query_one(f"#{name}", Select).value)

    def _arrange(self) -> None:
        """Show the fields of the work chosen, and foresee what it takes."""
        for name in fields():
            self.query_one(f"#row-{name}").display = name in USED[self.kind]
        self.query_one(".about-work", Static).update(explained()[self.kind])
        self.shown = self.kind
        self._again()

    @on(Select.Changed)
    @on(Checkbox.Changed)
    @on(Input.Changed)
    def changed(self, event: Message) -> None:
        event.stop()
        self._arrange()

    @on(Input.Submitted)
    def submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_start()

    def order(self) -> Order:
        """Give the order that the fields spell. Raises UsageError."""
        work, calibration = self.kind, self._choice("calibration") or None
        shared = {"source": self._text("source"), "name": self._text("name") or None}
        if not shared["source"]:
            raise UsageError(_("Which model?"), _("F2 lists those that are here."))
        types = self._words("types")
        if work == "merge":
            adapters = tuple(scaled(ref) for ref in references(self._text("adapter")))
            if not adapters:
                raise UsageError(_("Which adapter?"), _("F2 lists those that are here."))
            return Order(work, adapters=adapters, types=types, quantizing=Quantizing(calibration=calibration), **shared)
        if work == "quantize":
            return Order(work, types=types, quantizing=Quantizing(calibration=calibration), **shared)
        if work == "gptq":
            return Order(work, packing=self._packing(calibration or "mixed"), **shared)
        return Order(work, types=(self._choice("type"),), **shared)

    def _words(self, name: str) -> tuple[str, ...]:
        return tuple(self._text(name).replace(",", " ").split())

    def _packing(self, calibration: str) -> Packing:
        samples = self._text("samples")
        if not samples.isdecimal() or not int(samples):
            raise UsageError(_("{text} is no number of samples.").format(text=samples))
        return Packing(
            bits=int(self._choice("bits")),
            group_size=int(self._choice("group")),
            act_order=self.query_one("#order", Checkbox).value,
            calibration=calibration,
            samples=int(samples),
        )

    # What it takes

    def _again(self) -> None:
        self.plan = None
        self._serial += 1
        if self._typing is not None:
            self._typing.stop()
        self._typing = self.set_timer(PAUSE, self._foresee)
        self.query_one(".about-type", Static).update(self._types())

    def _types(self) -> str:
        if "types" not in USED[self.kind]:
            return ""
        known = meanings()
        return "\n".join(f"{one.upper()}: {known[one.upper()]}" for one in self._words("types") if one.upper() in known)

    def _foresee(self) -> None:
        self._typing = None
        try:
            order = self.order()
        except UsageError as error:
            self._tell(str(error))
            return
        self._tell("", _("Working out what it takes …"))
        self.foresee(order, self._serial)

    @work(thread=True, exclusive=True, group="foresee", exit_on_error=False)
    def foresee(self, order: Order, serial: int) -> None:
        try:
            self.post_message(self.Foreseen(serial, planning.prepare(order)))
        except Exception as error:  # the edge: whatever happened becomes a sentence
            self.post_message(self.Foreseen(serial, None, error))

    @on(Foreseen)
    def foreseen(self, event: Foreseen) -> None:
        if event.serial != self._serial:
            return
        self.plan = event.plan
        if event.error is not None:
            self._tell(str(event.error) if isinstance(event.error, VigtuiError) else repr(event.error))
        elif event.plan is not None:
            self._tell("" if event.plan.fits else _("It does not fit: see what is free."), foretold(event.plan))

    def _tell(self, complaint: str, plan: str = "") -> None:
        self.query_one("#plan", Static).update(plan)
        said = self.query_one(".complaint", Static)
        said.update(line(complaint))
        said.display = bool(complaint)

    # What can be done

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        actions: dict[str, Callable[[], object]] = {
            "yes": self.action_start, "no": self.action_cancel, "choose": self.action_choose,
        }  # fmt: skip
        actions[event.button.id or "no"]()

    def action_start(self) -> None:
        try:
            order = self.order()
        except UsageError as error:
            return self._tell(str(error))
        plan = self.plan
        if plan is None or plan.order != order:
            return  # the plan is on its way, or its complaint is on the screen
        if not plan.fits:
            return self.app.bell()
        self.dismiss((", ".join(one.record.ref for one in plan.products), order))

    @work(exclusive=True, group="choose")
    async def action_choose(self) -> None:
        """Choose a model or an adapter of those that are here, for the field that has the keys."""
        models, adapters = self.desk.models()
        focused = self.focused.id if self.focused else ""
        field = "adapter" if focused == "adapter" and "adapter" in USED[self.kind] else "source"
        kinds = {"gptq": ("safetensors",), "merge": ("safetensors",)}.get(self.kind, ("safetensors", "gguf"))
        found = adapters if field == "adapter" else [one for one in models if one.kind in kinds]
        items = [Item(one.ref, one.ref, one.source, f"{one.kind} · {size(one.size)}") for one in found]
        name = await self.app.push_screen_wait(Picker(fields()[field], items, "", _("There is none here.")))
        if name is not None:
            entry = self.query_one(f"#{field}", Input)
            entry.value = name
            entry.focus()


def works() -> dict[str, str]:
    """Give the works by name, the most wanted first."""
    return {
        "merge": _("Merge an adapter into its base model"),
        "quantize": _("Quantize for llama.cpp (GGUF)"),
        "gptq": _("Quantize for the GPU (GPTQ)"),
        "convert": _("Convert to GGUF"),
    }


def explained() -> dict[str, str]:
    """Give what each work is for, in a sentence or two."""
    return {
        "merge": _(
            "A LoRA adapter is a small change to a big model. Merged, the two are one model to quantize and share."
        ),
        "quantize": _("Fewer bits for each weight: smaller and faster, a little less exact. Runs on any processor."),
        "gptq": _("Fewer bits, chosen by how the model reads a text. For graphics cards, transformers and vLLM."),
        "convert": _("The same weights in llama.cpp's file format, whole or nearly so: the start of quantizations."),
    }


def fields() -> dict[str, str]:
    """Give the fields by name, in their order."""
    return {
        "source": _("Model"), "adapter": _("Adapter"), "types": _("Types"), "type": _("Type"), "bits": _("Bits"),
        "group": _("Group size"), "order": _("Act-order"), "calibration": _("Calibration"), "samples": _("Samples"),
        "name": _("Name"),
    }  # fmt: skip


def meanings() -> dict[str, str]:
    """Give what the types that people choose most are for."""
    return {
        "Q2_K": _("the smallest of the K types; answers suffer"),
        "Q3_K_M": _("small; for models that would not fit otherwise"),
        "Q4_K_M": _("the usual choice: a good third of F16's size, hardly worse"),
        "Q5_K_M": _("a little larger and closer to the original"),
        "Q6_K": _("hardly to be told from the original"),
        "Q8_0": _("as good as the original at half of F16's size"),
        "IQ4_XS": _("a bit smaller than Q4_K_M; best with a calibration"),
        "F16": _("not quantized"),
    }


def foretold(plan: Plan) -> str:
    """Give what an order takes, line by line."""
    said = [_("pull {name}: {size}").format(name=one.record.ref, size=size(one.missing)) for one in plan.pulls]
    for number, stage in enumerate(plan.stages, 1):
        about = _("≈ {size} to write").format(size=size(stage.size)) if stage.size else ""
        said.append(" · ".join(filter(None, (f"{number}. {stage.title}", about))))
    for one in plan.products:
        text = _("{name} is here already.") if one.here else _("Makes {name}.")
        said.append(text.format(name=one.record.ref))
    free = [_("{size} of disk").format(size=size(plan.free_disk))] if plan.free_disk is not None else []
    free += [_("{size} of memory").format(size=size(plan.free_memory))] if plan.free_memory is not None else []
    takes = _("Takes at most ≈ {disk} of disk and ≈ {memory} of memory at a time.")
    said.append(takes.format(disk=size(plan.disk), memory=size(plan.memory)))
    said += [_("Free: {free}.").format(free=", ".join(free))] if free else []
    return "\n".join(line(text) for text in (*said, *plan.notices))
