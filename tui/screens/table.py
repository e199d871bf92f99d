"""A table of safe texts, of which a row is chosen."""

from collections.abc import Iterable, Sequence

from rich.text import Text
from textual.widgets import DataTable
from textual.widgets.data_table import RowDoesNotExist

from ...core.text import line


class Table(DataTable[Text]):
    """Textual's table with a cursor on whole rows; what is put into it is never markup."""

    def __init__(self) -> None:
        super().__init__(cursor_type="row", cursor_foreground_priority="css")

    def head(self, columns: Iterable[tuple[str, str, int | None]]) -> None:
        """Have these columns: key, title, width (None: as its texts need)."""
        self.clear(columns=True)
        for key, title, width in columns:
            self.add_column(cell(title), key=key, width=width)

    def fill(self, rows: Sequence[tuple[str, Sequence[Text]]], key: str = "") -> None:
        """Show these rows, by key; the cursor goes to the row `key`, else stays on its own, if that is still there."""
        key = key or self.current
        self.clear()
        for name, cells in rows:
            self.add_row(*cells, key=name)
        try:
            place = self.get_row_index(key) if key else 0
        except RowDoesNotExist:
            place = 0
        self.move_cursor(row=place, scroll=True)

    @property
    def current(self) -> str:
        """The key of the row under the cursor, nothing when there is none."""
        if not self.is_valid_row_index(self.cursor_row):
            return ""
        return self.coordinate_to_cell_key(self.cursor_coordinate).row_key.value or ""


def cell(text: str, style: str = "", right: bool = False) -> Text:
    """Give `text`, made safe, on one line."""
    return Text(line(text), style, justify="right" if right else "left", overflow="ellipsis", no_wrap=True)
