"""A stranger's template costs one sentence, whatever it does, and the next one renders."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from vigtui.chat import foreign, formats
from vigtui.chat.render import render
from vigtui.core.errors import FormatError

from .toy import LLAMA, talk

DOUBLING = "{% set ns = namespace(x='a' * 1000) %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"
LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (LOOP, "ran for more than 2 seconds"),
        ("{{ lipsum(n=10000000) }}", "ran for more than 2 seconds"),
        (DOUBLING, "too much memory"),
        ("{{ 'x'.center(3000000000) }}", "too much memory"),
        ("{{ '%2000000000d' | format(1) }}", "too much memory"),
        ("{{ 'a' * 10 ** 9 }}", "repeated too often"),
        ("{% for i in range(99999) %}{{ 'é' * 100 }}{% endfor %}", "longer than 4194304 bytes"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ cycler.__init__.__globals__.os }}", "unsafe"),
        ("{% for %}", "Expected"),
        ("{{ raise_exception('roles must\\nalternate') }}", "roles must alternate"),
    ],
)
def test_what_harms_is_stopped_with_one_sentence(template: str, reason: str) -> None:
    with pytest.raises(FormatError, match=reason) as error:
        foreign.run(template, {"messages": [{"role": "user", "content": "a"}]})
    assert "\n" not in str(error.value) and "--format" in error.value.hint
    assert foreign.run("{{ messages[0].content }}", {"messages": [{"content": "é 🦙 \ud800"}]}) == "é 🦙 \ud800"


def test_the_process_stays_and_is_started_again_when_killed() -> None:
    foreign.run("a", {})
    first = foreign.pid()
    assert first is not None and foreign.run("b", {}) == "b" and foreign.pid() == first
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, os.WNOHANG)
    for _try in range(2):  # the death may be seen by this request, then the next one has a new process
        try:
            assert foreign.run("c", {}) == "c"
            break
        except FormatError:
            continue
    assert foreign.pid() not in (None, first)


def test_a_models_own_template_renders_there() -> None:
    own = formats.own(replace(LLAMA, chat_template="{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"))
    assert render(own, talk("a</s>", "b", "c"), LLAMA).pieces == (
        ("a", True),
        ("</s>", False),
        ("</s>b</s>c</s>", True),
    )


def test_our_own_formats_start_no_process() -> None:
    script = (
        "from vigtui.chat import foreign, formats\nfrom vigtui.chat.render import render\n"
        "from vigtui.backends.base import Message, ModelInfo\n"
        "render(formats.get('llama-2'), [Message('user', 'a')], ModelInfo('', '', 0, 0, 0, 0, '', 0))\n"
        "print(foreign.pid())"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout == "None\n"
