"""Keys in the language in force: bindings are written in English in the classes and translated with each widget."""

from dataclasses import replace

from textual.binding import Binding, BindingsMap
from textual.dom import DOMNode

from ..core.i18n import _


def N_(text: str) -> str:
    """Mark `text` for the catalogue; `translate` gives it in the language in force."""
    return text


def translate(node: DOMNode) -> None:
    """Put the descriptions of the keys of `node` into the language in force. Called when the node is made."""
    keys = {key: [_translated(one) for one in found] for key, found in node._bindings.key_to_bindings.items()}
    node._bindings = BindingsMap.from_keys(keys)


def _translated(binding: Binding) -> Binding:
    text, more = binding.description, binding.tooltip
    return replace(binding, description=_(text) if text else "", tooltip=_(more) if more else "")
