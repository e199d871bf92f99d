"""Texts for people, in English and French, through one gettext catalogue (`assets/locale`)."""

import gettext
import os

from .. import assets

LANGUAGES = ("en", "fr")

_catalogue: gettext.NullTranslations | None = None


def language() -> str:
    """Give the language in force, from `LANGUAGE`, `LC_ALL`, `LC_MESSAGES` or `LANG`: "fr" or "en"."""
    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(name)
        if value:
            return "fr" if value.lower().startswith("fr") else "en"
    return "en"


def use(name: str | None = None) -> None:
    """Choose the language of all texts from now on; None takes the environment's."""
    global _catalogue
    _catalogue = gettext.translation(
        "vigtui", str(assets.path("locale")), languages=[name or language()], fallback=True
    )


def _(text: str) -> str:
    """Give `text`, written in English in the code, in the language in force."""
    if _catalogue is None:
        use()
    assert _catalogue is not None
    return _catalogue.gettext(text)
