"""The columns of a completion: where each token begins in the text, whatever bytes it is made of."""

import pytest
from vigtui.backends.base import Chosen
from vigtui.backends.text import spelled
from vigtui.server.logprob import Columns

LAMA = [bytes([byte]) for byte in "🦙".encode()]


@pytest.mark.parametrize(
    ("tokens", "offsets"),
    [
        ([b"ab", b" c"], [0, 2]),
        ([b"a", b"\xc3", b"\xa9", b"b"], [0, 1, 1, 2]),
        ([*LAMA, b"z"], [0, 0, 0, 0, 1]),
        ([b"\xf0", b"ent", b"x"], [0, 1, 4]),
        ([b"\xc3", b"\xf0", b"y"], [0, 1, 2]),
        ([b"y\xc3", b"\xa9z", b"!"], [0, 1, 3]),
    ],
)
def test_every_token_begins_where_its_text_does(tokens: list[bytes], offsets: list[int]) -> None:
    chosen = [Chosen(spelled(data), -1.0) for data in tokens]
    assert Columns().take(chosen, 0)["text_offset"] == offsets
    stream = Columns()
    assert [stream.take([one], 0)["text_offset"][0] for one in chosen] == offsets


def test_the_chosen_token_stands_beside_the_likeliest() -> None:
    one = Chosen("c", -3.0, (("a", -0.5), ("b", -1.0), ("b", -2.0)))
    assert Columns().take([one], 3)["top_logprobs"] == [{"a": -0.5, "b": -1.0, "c": -3.0}]
    assert Columns().take([one], 1)["top_logprobs"] == [{"a": -0.5, "c": -3.0}]
    assert Columns().take([one], 0)["top_logprobs"] is None
