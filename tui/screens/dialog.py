"""What every dialog has: Esc goes back, and it ends once."""

from typing import ClassVar, TypeVar

from textual.await_complete import AwaitComplete
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

from ..key import N_, translate

T = TypeVar("T")


class Dialog(ModalScreen[T | None]):
    """A dialog that gives a T, or None when the user goes back."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", N_("Back"))]

    def __init__(self, kind: str = "") -> None:
        super().__init__(classes=f"dialog {kind}")
        translate(self)
        self._ended = False

    def dismiss(self, result: T | None = None) -> AwaitComplete:
        """End. A key that comes too early, too late, or is meant for what lies above, does nothing."""
        if self._ended or not self.is_current or not self.is_mounted:
            return AwaitComplete()
        self._ended = True
        return super().dismiss(result)

    def action_cancel(self) -> None:
        self.dismiss()
