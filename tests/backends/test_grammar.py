import json

import pytest
from vigtui.backends import grammar
from vigtui.core.errors import UsageError


@pytest.mark.parametrize(
    "schema",
    [
        "not json",
        "[]",
        "true",
        '{"$ref": "#"}',
        '{"type": "nonsense"}',
        '{"type": "string", "pattern": "a(?=b)"}',
        '{"$ref": "https://elsewhere/schema.json"}',
        json.dumps({"type": "string", "maxLength": 5000}),
        json.dumps({"type": "array", "items": {}, "maxItems": 5000}),
    ],
)
def test_a_schema_without_a_grammar_is_one_sentence(schema: str) -> None:
    with pytest.raises(UsageError) as caught:
        grammar.from_schema(schema)
    assert caught.value.exit_code == 2 and caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        'root ::= "a"{3,1}',
        "root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000,
        'root ::= "a"{100000}',
        'other ::= "a"',
        'root ::= "' + "a" * 70_000 + '"',
    ],
)
def test_a_grammar_that_kills_the_engine_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        grammar.check(text)


def test_braces_inside_strings_and_comments_are_no_repetition() -> None:
    text = 'root ::= "{9,1}" [{9,1}] # {9,1}\n'
    assert grammar.check(text) == text


def test_strings_of_a_schema_hold_no_control_characters() -> None:
    text = grammar.from_schema('{"type": "string"}')
    assert r"\x00-\x1F" in text
