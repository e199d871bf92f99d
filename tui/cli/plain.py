"""The plain chat: line by line in any terminal, as `vigtui --plain`."""

import sys
from collections.abc import Callable
from contextlib import closing

from ...backends.base import Notice, Text
from ...core.errors import UsageError, VigtuiError
from ...core.i18n import _
from ...core.text import SafeStream, line, safe
from . import terminal
from .interrupt import Interrupt, interruptible
from .layer import NAMES, known
from .output import emphasis, print_rows
from .talk import Talk, opened, system_from
from .wish import Wish


def chat(wish: Wish) -> int:
    """Chat until the person leaves; give the exit code."""
    for flag, given in (("--json", wish.as_json), ("--jsonl", wish.as_lines), ("--extract", wish.extract)):
        if given:
            raise UsageError(_("{flag} needs a prompt.").format(flag=flag), _("Add -p TEXT."))
    with interruptible() as stop, opened(wish, trust=terminal.trusts) as talk, terminal.editing(keep=not wish.no_save):
        plain = Plain(talk, stop, wish.stats)
        plain.greet()
        plain.run()
    return 0


class Plain:
    """A running chat: reads a line, does what it says, until `/bye`."""

    def __init__(self, talk: Talk, stop: Interrupt, stats: bool = False) -> None:
        self.talk, self.stop, self.stats = talk, stop, stats
        self.leaving = False
        self.commands: dict[str, tuple[Callable[[str], None], str, str]] = {
            "/help": (self.help, "", _("this list")),
            "/new": (self.new, "", _("begin a new conversation")),
            "/model": (self.model, _("[NAME]"), _("say which model answers, or change it")),
            "/system": (self.system, _('[TEXT|default|none|""]'), _("show or change the system message")),
            "/set": (self.set, _("[NAME [VALUE]]"), _("show or change generation values")),
            "/bye": (self.bye, "", _("leave (also Ctrl-D)")),
        }

    def greet(self) -> None:
        """Say what answers and how to find out more, and once ever what the embedded model is."""
        talk = self.talk
        print(emphasis(line(talk.label()), "1"))
        if talk.model.embedded and terminal.first_time("guide"):
            print(_("vigogneau is a tiny guide to vigtui: it knows this program and little else."))
            print(_("For a real model: `vigtui pull vigogne-2-7b-chat`, then `vigtui run vigogne-2-7b-chat`."))
        for notice in talk.notices:
            terminal.complain(notice)
        if talk.session.persona and talk.session.persona.greeting:
            print(safe(talk.session.persona.greeting))
        print(emphasis(_("/help lists the commands, Ctrl-C stops an answer, /bye leaves."), "2"))

    def run(self) -> None:
        """Read and answer until the person leaves: `/bye`, Ctrl-D, or Ctrl-C twice at the prompt."""
        warned = False
        while not self.leaving and not self.stop.ending:
            try:
                text = terminal.read(">>> ", "... ")
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                if warned:
                    print()
                    return
                warned = True
                print("\n" + emphasis(_("Ctrl-C again or /bye leaves."), "2"))
                continue
            warned = False
            self.take(text)

    def take(self, text: str) -> None:
        """Do what `text` says; an error is a sentence, and the chat goes on."""
        try:
            if text.startswith("/"):
                self.command(*text.partition(" ")[::2])
            elif text.strip():
                self.answer(text)
        except VigtuiError as error:
            terminal.complain(f"{error.message} {error.hint}")
        except KeyboardInterrupt:
            print()

    def command(self, name: str, rest: str) -> None:
        name = {"/exit": "/bye", "/quit": "/bye", "/?": "/help"}.get(name, name)
        if name not in self.commands:
            raise UsageError(
                _("There is no command {name}.").format(name=name),
                _("/help lists them; a text may begin with a space before the slash."),
            )
        self.commands[name][0](rest.strip())

    def answer(self, text: str) -> None:
        """Stream the answer to `text`; Ctrl-C stops it."""
        out, last = SafeStream(), "\n"
        try:
            with self.stop.stream(), closing(self.talk.reply(text, self.stop)) as events:  # pyright: ignore
                for event in events:
                    if isinstance(event, Notice):
                        terminal.complain(event.text)
                    shown = out.feed(event.delta) if isinstance(event, Text) else ""
                    last = shown[-1:] or last
                    sys.stdout.write(shown)
                    sys.stdout.flush()
        finally:
            if last != "\n":
                print()
        if self.talk.result.finish_reason == "cancelled":
            print(emphasis(_("Stopped; what was said is kept."), "2"))
        elif self.talk.result.finish_reason == "length":
            print(emphasis(_("Cut at the length limit."), "2"))
        if self.stats:
            print(emphasis(line(self.talk.statistics()), "2"))

    def help(self, _rest: str) -> None:
        print_rows([(f"{name} {argument}".strip(), text) for name, (_run, argument, text) in self.commands.items()])
        print(_('"""   begins and ends a text of several lines'))

    def new(self, _rest: str) -> None:
        self.talk.new()
        print(_("A new conversation."))

    def model(self, name: str) -> None:
        if name:
            self.talk.switch(name)
        print(line(f"{self.talk.label()} ({self.talk.reason})"))

    def system(self, text: str) -> None:
        if text:
            self.talk.change_system(system_from(text))
        shown = self.talk.system_text()
        print(_("No system message.") if shown is None else safe(shown) or _("The system message is empty."))

    def set(self, rest: str) -> None:
        name, _space, value = rest.partition(" ")
        if name and value.strip():
            self.talk.set(name, value.strip())
        elif name:
            known(name)
        values = self.talk.layers.effective()
        names = [name] if name else NAMES
        print_rows([(n, _value(getattr(values, n)), self.talk.layers.source(n) or "") for n in names])

    def bye(self, _rest: str) -> None:
        self.leaving = True


def _value(value: object) -> str:
    if value is None:
        return "–"
    return " ".join(repr(part) for part in value) if isinstance(value, tuple) else str(value)
