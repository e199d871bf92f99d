"""The French catalogue has every text of the sources, whole, and the compiled file is the one that is read."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from gettext import GNUTranslations
from io import BytesIO
from pathlib import Path
from typing import IO

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_file
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from vigtui.core import i18n

ROOT = Path(__file__).resolve().parents[2]
LOCALE = ROOT / "assets" / "locale"
FRENCH = LOCALE / "fr" / "LC_MESSAGES"
ROOMS = ("core", "backends", "chat", "registry", "server", "tui")
MAKE = "run `make locale`, then fill in assets/locale/fr/LC_MESSAGES/vigtui.po and run it again"

Text = str | tuple[str, ...]


def modules() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


@cache
def sources() -> dict[Text, str]:
    """Every text of the rooms, and where it stands first."""
    found: dict[Text, str] = {}
    for path in modules():
        for number, text, _comments, _context in extract_from_file("python", path):
            found.setdefault(text, f"{path.relative_to(ROOT)}:{number}")
    return found


@cache
def catalogue() -> Catalog:
    with (FRENCH / "vigtui.po").open("rb") as file:
        return read_po(file)


def entries() -> list[Message]:
    return [entry for entry in catalogue() if entry.id]


def pairs() -> Iterator[tuple[str, str]]:
    """Each text and its translation, singular and plural apart."""
    for entry in entries():
        if isinstance(entry.id, tuple):
            yield from zip(entry.id, entry.string, strict=True)
        else:
            yield entry.id, entry.string


def fields(text: str) -> list[str]:
    return sorted(set(re.findall(r"\{\w+(?:[!:][^{}]*)?\}", text)))


def texts(file: IO[bytes]) -> dict[object, str]:
    """What gettext reads from a compiled catalogue, without the header, which names the release of babel."""
    found: dict[object, str] = dict(GNUTranslations(file)._catalog)  # pyright: ignore
    found.pop("")
    return found


def test_every_room_is_extracted() -> None:
    named = re.findall(r"\[python: (\w+)/\*\*\.py\]", (LOCALE / "babel.cfg").read_text(encoding="utf-8"))
    assert set(named) == set(ROOMS)


def test_every_text_of_the_sources_is_translated() -> None:
    assert len(sources()) > 800
    translated = {entry.id for entry in entries() if all(entry.string if entry.pluralizable else [entry.string])}
    missing = [f"{place} {text!r}" for text, place in sources().items() if text not in translated]
    assert not missing, f"{MAKE}: {missing}"


def test_every_entry_has_a_translation_that_nobody_doubts() -> None:
    assert not [entry.id for entry in catalogue() if entry.fuzzy]
    assert not [text for text, french in pairs() if not french.strip()]


def test_no_text_hides_in_an_f_string() -> None:
    """Before Python 3.12 an f-string is one token, and babel does not look into it."""
    hidden = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in modules()
        for outer in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(outer, ast.JoinedStr)
        for node in ast.walk(outer)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("_", "N_", "ngettext")
    ]
    assert not hidden, f"put the text into a variable first: {hidden}"


def test_fields_are_those_of_the_source() -> None:
    assert not [(text, french) for text, french in pairs() if fields(text) != fields(french)]


def test_what_is_typed_stays_as_it_is() -> None:
    """What stands between backquotes is a command, a flag or a name."""
    quoted = re.compile(r"`[^`]*`")
    wrong = [
        (text, french) for text, french in pairs() if sorted(quoted.findall(text)) != sorted(quoted.findall(french))
    ]
    flag = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")
    wrong += [(text, french) for text, french in pairs() if set(flag.findall(text)) != set(flag.findall(french))]
    assert not wrong


def test_french_is_typeset_as_french() -> None:
    """A no-break space stands before : ; ? ! % » and after «; quotes are French, and a sentence ends as in English."""
    bad = re.compile(r"[^\u00a0][;!»%](?!\w)|[\w)} ][?](?!\w)|[\w)} ]:(?=\s|$)|«[^\u00a0]|[“”]")
    plain = [(text, re.sub(r"`[^`]*`|https?://\S*", "…", french)) for text, french in pairs()]
    assert not [(french, bad.findall(french)) for _text, french in plain if bad.search(french)]
    assert not [(text, french) for text, french in plain if text[-1] in ".?!" and french[-1] not in ".?!"]
    assert not [french for text, french in plain if text[0].isspace() != french[0].isspace()]
    trailing = {text for text, french in plain if french[-1].isspace()}
    assert trailing == {"Commands", "Options"}  # behind which click puts a colon


def test_the_compiled_catalogue_is_that_of_the_po_file() -> None:
    compiled = BytesIO()
    write_mo(compiled, catalogue())
    compiled.seek(0)
    with (FRENCH / "vigtui.mo").open("rb") as file:
        assert texts(file) == texts(compiled), "run `make locale`"


def test_the_header_names_no_person_and_no_day_of_a_run() -> None:
    head = catalogue()
    assert (str(head.locale), head.charset, head.num_plurals, head.plural_expr) == ("fr", "utf-8", 2, "(n > 1)")
    assert "@" not in (FRENCH / "vigtui.po").read_text(encoding="utf-8").partition("\n\n")[0]


@pytest.mark.parametrize(
    ("variables", "language"),
    [
        ({"LANG": "fr_FR.UTF-8"}, "fr"),
        ({"LANG": "fr_CA.UTF-8", "LC_ALL": "C.UTF-8"}, "en"),
        ({"LANG": "en_GB.UTF-8", "LC_MESSAGES": "fr_BE.UTF-8"}, "fr"),
        ({"LANG": "en_GB.UTF-8", "LANGUAGE": "fr:en"}, "fr"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": ""}, "en"),
    ],
)
def test_the_language_is_that_of_the_environment(
    variables: dict[str, str], language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert i18n.language() == language
    i18n.use()
    assert i18n._("Cancel") == {"en": "Cancel", "fr": "Annuler"}[language]


def test_an_unknown_text_stays_english() -> None:
    i18n.use("fr")
    assert i18n._("No such text.") == "No such text."
