"""The commands of the palette: everything that can be done in a conversation, by name."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from textual.app import SystemCommand
from textual.await_complete import AwaitComplete
from textual.command import CommandPalette

from ..core.i18n import _
from .key import N_

if TYPE_CHECKING:
    from .screens.chat import ChatScreen

# The name, what it does, and the action.
TABLE = (
    (N_("New conversation"), N_("Begin anew; this one is kept"), "new"),
    (N_("Conversations"), N_("Open, search, rename or delete earlier ones"), "chats"),
    (N_("Rename"), N_("Give this conversation a title"), "rename"),
    (N_("Delete"), N_("Remove this conversation for good"), "delete"),
    (N_("Answer again"), N_("Make another answer beside the last one"), "regenerate"),
    (
        N_("Answer again with…"),
        N_("Have another model answer the last message once, beside the first answer"),
        "elsewhere",
    ),
    (N_("Beams"), N_("All hypotheses of the last beam search with their scores"), "beams"),
    (N_("Stop"), N_("Stop the answer and keep what has come"), "stop"),
    (N_("Edit the last message"), N_("Send another version of it; the old one stays"), "edit_last"),
    (N_("Version before"), N_("Show the version before of the last message that has several"), "version(-1)"),
    (N_("Version after"), N_("Show the next version of the last message that has several"), "version(1)"),
    (N_("Copy the answer"), N_("Put the last answer on the clipboard"), "copy_answer"),
    (N_("Copy code"), N_("Put a code block on the clipboard"), "copy_block"),
    (N_("Model"), N_("Choose who answers from now on"), "models"),
    (N_("All models"), N_("Those here, the catalogue and the hub: pull, look closer, remove"), "library"),
    (N_("Workshop"), N_("Merge adapters, quantize and convert models, and see how good they are"), "workshop"),
    (N_("Adapters"), N_("Switch LoRA adapters on or off and set their scale"), "adapters"),
    (N_("Prompt format"), N_("Choose how messages are written for the model"), "formats"),
    (N_("Prompt doctor"), N_("See exactly what the model is sent, and try other formats"), "doctor"),
    (N_("Persona"), N_("Choose a system message, examples and values by name"), "personas"),
    (N_("System message"), N_("Read or change what the model is told first"), "system"),
    (N_("Generation values"), N_("Temperature, top_p, seed … and where each comes from"), "generation"),
    (N_("To the messages"), N_("Give the keys to the last message"), "focus_transcript"),
    (N_("To the prompt"), N_("Give the keys to the prompt"), "focus_prompt"),
    (N_("To the end"), N_("Scroll to the newest message"), "bottom"),
)


class Palette(CommandPalette):
    """Textual's palette, which stumbles over a key for a list that has no room yet, and over a second Enter."""

    _ended = False

    def dismiss(self, result: None = None) -> AwaitComplete:
        if self._ended or not self.is_current:
            return AwaitComplete()
        self._ended = True
        return super().dismiss(result)

    def _action_command_list(self, action: str) -> None:
        with suppress(KeyError):
            super()._action_command_list(action)


def commands(screen: "ChatScreen") -> Iterator[SystemCommand]:
    """Give the commands that make sense on `screen` as it stands."""
    for title, text, action in TABLE:
        if screen.check_action(action.partition("(")[0], ()):
            yield SystemCommand(_(title), _(text), _runner(screen, action))


def _runner(screen: "ChatScreen", action: str) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        await screen.run_action(action)

    return run
