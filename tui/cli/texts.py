"""click's own texts in the language in force: it asks gettext's global domain, which becomes ours."""

import gettext
import os
from gettext import ngettext

from ... import assets
from ...core import i18n
from ...core.i18n import _


def translate() -> None:
    """Have click speak the language in force."""
    os.environ["LANGUAGE"] = i18n.language()
    gettext.bindtextdomain("vigtui", str(assets.path("locale")))
    gettext.textdomain("vigtui")


def met() -> tuple[str, ...]:
    """Give the texts of click that people meet here, so that the catalogue has them."""
    return (
        _("Options"),
        _("Commands"),
        _("Usage:"),
        _("Show this message and exit."),
        _("Missing command."),
        _("Missing argument"),
        _("Missing option"),
        _("Missing parameter"),
        _("Invalid value: {message}"),
        _("Invalid value for {param_hint}: {message}"),
        _("No such option {name!r}."),
        _("No such command {name!r}."),
        _("Option {name!r} does not take a value."),
        _("{value!r} is not a valid {number_type}."),
        _("{value} is not in the range {range}."),
        _("{name} {filename!r} does not exist."),
        _("{name} {filename!r} is a directory."),
        _("{name} {filename!r} is not readable."),
        _("file"),
        _("path"),
        ngettext("Did you mean {possibility}?", "(Did you mean one of: {possibilities}?)", 2),
        ngettext("Got unexpected extra argument ({args})", "Got unexpected extra arguments ({args})", 2),
        ngettext("Option {name!r} requires an argument.", "Option {name!r} requires {nargs} arguments.", 2),
        ngettext("{value!r} is not {choice}.", "{value!r} is not one of {choices}.", 2),
    )
