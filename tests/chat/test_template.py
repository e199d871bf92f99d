"""A model's own template: what transformers gives it is there, what would harm is not."""

import json

import pytest
from vigtui.chat.template import run
from vigtui.core.errors import FormatError

MESSAGES = {"messages": [{"role": "user", "content": "é <b>"}], "tools": None, "bos_token": "<s>"}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ messages[0]['content'] }}", "é <b>"),
        ("{{ messages[0] | tojson }}", '{"role": "user", "content": "é <b>"}'),
        ("{{ [1] | tojson(indent=1) }}", "[\n 1\n]"),
        ("{{ {'b': 'é', 'a': 1} | tojson(ensure_ascii=True, sort_keys=True, separators=(',', ':')) }}", None),
        ("{% if tools is not none %}x{% endif %}\ny", "y"),
        ("{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "012"),
        ("{% for i in range(3) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "02"),
        ("{% generation %}a{{ bos_token }}{% endgeneration %}b", "a<s>b"),
        ("{% set ns = namespace(n=1) %}{% set ns.n = 2 %}{{ ns.n * 3 }}{{ 'ab' * 2 }}{{ 2 ** 3 }}", "6abab8"),
        ("{{ strftime_now('%Y') | length }}", "4"),
    ],
)
def test_what_transformers_gives(template: str, expected: str | None) -> None:
    assert run(template, MESSAGES) == (expected or json.dumps({"a": 1, "b": "é"}, separators=(",", ":")))


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__ }}x{{ messages.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ ''['__class__']['__base__']['__subclasses__']() }}",
        "{{ (''|attr('__class__')).mro() }}",
        "{{ '%s'|format(messages.append.__self__) }}{{ '{0.__class__}'.format(1) }}x{{ messages.append(1) }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='system') }}",
        "{% set x = namespace() %}{{ x.__init__.__globals__ }}",
        "{{ raise_exception.__globals__ }}x{{ raise_exception.__globals__.json }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{{ 'a' * 10 ** 9 }}",
        "{{ 10 ** 9 * 'a' }}",
        "{{ [0] * 10 ** 9 }}",
        "{{ 2 ** 1000 }}",
        "{{ range(10 ** 9) | length }}",
        "{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
        "{{ raise_exception('no\\nsystem') }}",
        "{{ 1 / 0 }}",
        "{{ 1 + 'a' }}",
        "{{ nothing.at.all }}",
        "{{ messages | no_such_filter }}",
        "{% for %}",
        "{{ strftime_now(3) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_what_is_refused(template: str) -> None:
    with pytest.raises(FormatError) as error:
        run(template, MESSAGES)
    assert "\n" not in str(error.value)


def test_the_reason_of_the_template_is_told() -> None:
    with pytest.raises(FormatError, match="Conversation roles must alternate"):
        run("{{ raise_exception('Conversation roles must alternate!') }}", {})
