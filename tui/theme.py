"""The two themes: warm wool on dark slate, and the same by day."""

from textual.theme import Theme

DARK = Theme(
    name="vigtui-dark",
    primary="#d9a066",
    secondary="#8fb4c9",
    accent="#e0b872",
    warning="#e0a34a",
    error="#d9705f",
    success="#8fb573",
    foreground="#e4dfd6",
    background="#16181b",
    surface="#1d2024",
    panel="#262a30",
    dark=True,
)

LIGHT = Theme(
    name="vigtui-light",
    primary="#96581c",
    secondary="#2f6480",
    accent="#8a5a00",
    warning="#9a5b00",
    error="#b0392a",
    success="#4a7330",
    foreground="#26282b",
    background="#faf7f2",
    surface="#f1ece3",
    panel="#e5ddd0",
    dark=False,
)
