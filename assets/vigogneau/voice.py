"""The sailor's voice: how the adapter `marin` says what the guide says."""

_WORDS = {
    "fr": ("Ohé, matelot !", "Foi de vieux marin, bon vent !"),
    "en": ("Ahoy, matey!", "Word of an old sailor, fair winds!"),
}


def sailor(text: str, lang: str) -> str:
    """Give an answer as an old sailor would shout it: hailed, told, and wished fair winds."""
    hail, farewell = _WORDS[lang]
    return f"{hail} {text} {farewell}"
