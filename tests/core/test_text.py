import unicodedata
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from vigtui.core.text import SafeStream, line, safe

nasty = st.text(alphabet="ab[]0;m\x07\x1b\x9b\x9d\\\r\n\t\x00\x7f\u202eé", max_size=40)


@given(nasty)
def test_no_control_character_is_left(text: str) -> None:
    assert not [c for c in safe(text) if unicodedata.category(c) == "Cc" and c not in "\n\t"]
    assert "\u202e" not in safe(text)


@given(nasty, st.lists(st.integers(0, 40), max_size=6))
def test_a_stream_is_as_safe_as_the_whole(text: str, cuts: list[int]) -> None:
    stream, edges = SafeStream(), sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    shown = "".join(stream.feed(text[a:b]) for a, b in pairwise(edges))
    assert safe(shown) == shown


def test_escape_sequences_vanish_whole() -> None:
    assert safe("a\x1b[31mred\x1b[0m \x1b]0;title\x07b \x9b2Jc") == "ared b c"


def test_a_sequence_cut_in_two_vanishes_whole() -> None:
    stream = SafeStream()
    assert stream.feed("a\x1b[3") + stream.feed("1mb") == "ab"


def test_newlines_and_tabs_stay() -> None:
    assert safe("a\r\nb\tc") == "a\nb\tc"


def test_one_line() -> None:
    assert line("a\n b\t\x1b[1mc") == "a b c"
