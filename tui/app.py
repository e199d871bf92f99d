"""The app: `VigtuiApp` wires the screens, the themes and the command palette."""

import asyncio
import signal
from collections.abc import Iterable
from contextlib import suppress
from typing import ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from ..core import config
from ..core.errors import VigtuiError
from ..core.i18n import _
from ..registry import open as opening
from . import theme
from .cli.wish import Wish
from .desk import Desk
from .key import N_, translate
from .screens.chat import ChatScreen

THEMES = {"dark": theme.DARK, "light": theme.LIGHT}


class VigtuiApp(App[None]):
    """The chat in a terminal, over a Desk that it closes when it ends."""

    TITLE = "vigtui"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+p", "command_palette", N_("Commands"), priority=True, tooltip=N_("Everything that can be done")),
        Binding("f1", "help", N_("Keys"), priority=True),
        Binding("ctrl+q", "quit", N_("Quit"), show=False, priority=True),
    ]

    def __init__(self, desk: Desk) -> None:
        super().__init__(css_path=["app.tcss", "screens/chat.tcss", "screens/library.tcss", "screens/workshop.tcss"])
        translate(self)
        self.desk = desk
        for one in THEMES.values():
            self.register_theme(one)
        self.theme = THEMES.get(_configured() or "dark", theme.DARK).name

    def get_default_screen(self) -> Screen[None]:
        return ChatScreen(self.desk)

    def on_mount(self) -> None:
        """End in good order when the terminal is closed or the system shuts down."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            with suppress(ValueError, RuntimeError, NotImplementedError):  # only the main thread may
                asyncio.get_running_loop().add_signal_handler(number, self.exit)

    def on_unmount(self) -> None:
        self.desk.close()

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Give every action of the conversation, and those of the app."""
        if isinstance(screen, ChatScreen):
            from .palette import commands

            yield from commands(screen)
        yield SystemCommand(_("Light or dark"), _("Change between the light and the dark theme"), self.action_daylight)
        yield SystemCommand(_("Theme"), _("Choose among all themes"), self.action_change_theme)
        yield SystemCommand(_("Keys"), _("Show every key"), self.action_help)
        yield SystemCommand(_("Quit"), _("Leave vigtui"), self.action_quit)

    def action_command_palette(self) -> None:
        from .palette import Palette

        if not isinstance(self.screen, Palette):
            self.push_screen(Palette(placeholder=_("What should happen?")))

    def action_daylight(self) -> None:
        name = "light" if self.current_theme.dark else "dark"
        self.theme = THEMES[name].name
        with suppress(VigtuiError, OSError):
            config.put("theme", name)

    def action_help_quit(self) -> None:
        """Ctrl+C stops an answer; it is no key to leave by accident."""
        screen = self.screen
        if isinstance(screen, ChatScreen) and screen.check_action("stop", ()):
            screen.action_stop()
        else:
            self.notify(_("Ctrl+Q leaves vigtui."))

    def action_help(self) -> None:
        from .screens.help import HelpScreen

        if isinstance(self.screen, HelpScreen):
            self.screen.dismiss()
        else:
            self.push_screen(HelpScreen(self.screen))


def _configured() -> str | None:
    with suppress(VigtuiError):
        return config.get("theme")
    return None


def run(wish: Wish) -> int:
    """Open the app and give its exit code when it ends. Raises what is wrong with the flags before it opens."""
    if wish.model:
        opening.backend_for(opening.resolve(wish.model), wish.backend)
    app = VigtuiApp(Desk(wish))
    app.run()
    return app.return_code or 0
