"""The code blocks of a conversation, the newest first."""

from collections.abc import Sequence

from ...core.i18n import _
from ..fence import Block
from .picker import Item, Picker


class BlocksScreen(Picker):
    """Gives the text of the block chosen."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.blocks = list(blocks)
        items = [_item(i, block) for i, block in enumerate(self.blocks)][::-1]
        super().__init__(_("Copy code"), items, _("Enter copies the block."), _("No block has these words."))

    def choose(self, item: Item | None) -> None:
        if item is not None:
            self.dismiss(self.blocks[int(item.id)].text)


def _item(index: int, block: Block) -> Item:
    lines = block.text.rstrip("\n").split("\n")
    note = _("{count} lines").format(count=len(lines)) if len(lines) > 1 else _("1 line")
    return Item(str(index), lines[0].strip() or "…", block.language, note)
