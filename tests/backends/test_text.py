from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from vigtui.backends.text import TextStream

alphabet = st.text(alphabet="ab<|>é\n", max_size=40)
stop_strings = st.lists(st.text(alphabet="ab<|>é\n", min_size=1, max_size=5), max_size=4)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(edges)]


def whole(text: str, stops: list[str]) -> tuple[str, bool]:
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    return (text[: min(ends)[1]], True) if ends else (text, False)


@given(alphabet, stop_strings, st.lists(st.integers(0, 100), max_size=12))
def test_streamed_text_equals_the_whole_text(text: str, stops: list[str], cuts: list[int]) -> None:
    stream = TextStream(stops)
    shown = "".join(stream.feed(piece) for piece in pieces(text.encode(), cuts)) + stream.finish()
    assert (shown, stream.stopped) == whole(text, stops)


@given(st.binary(max_size=30), st.lists(st.integers(0, 100), max_size=12))
def test_invalid_bytes_become_replacement_characters(data: bytes, cuts: list[int]) -> None:
    stream = TextStream()
    shown = "".join(stream.feed(piece) for piece in pieces(data, cuts)) + stream.finish()
    assert shown == data.decode("utf-8", "replace")


@given(alphabet, stop_strings, st.lists(st.integers(0, 100), max_size=12))
def test_nothing_shown_is_ever_taken_back(text: str, stops: list[str], cuts: list[int]) -> None:
    stream, shown = TextStream(stops), ""
    expected, _stopped = whole(text, stops)
    for piece in pieces(text.encode(), cuts):
        shown += stream.feed(piece)
        assert expected.startswith(shown)


def test_half_a_character_waits_for_the_other_half() -> None:
    stream = TextStream()
    assert stream.feed("é".encode()[:1]) == ""
    assert stream.feed("é".encode()[1:]) == "é"


def test_half_a_stop_string_is_given_when_the_answer_ends() -> None:
    stream = TextStream(["<|user|>"])
    assert stream.feed(b"fin <|us") == "fin "
    assert stream.finish() == "<|us"
