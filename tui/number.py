"""Numbers as people read them in their language."""

from ..core import i18n


def count(value: int) -> str:
    """Give a whole number with its thousands apart."""
    return f"{value:,}".replace(",", "\u202f" if i18n.language() == "fr" else ",")


def decimal(value: float, digits: int = 1) -> str:
    """Give a number with the decimal mark of the language."""
    text = f"{value:.{digits}f}"
    return text.replace(".", ",") if i18n.language() == "fr" else text


def plain(value: object) -> str:
    """Give a generation value as it is typed."""
    if isinstance(value, tuple):
        return " ".join(_quoted(str(part)) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _quoted(text: str) -> str:
    text = text.replace("\n", "\\n").replace("\t", "\\t")
    return f"'{text}'" if not text or any(character.isspace() for character in text) else text
