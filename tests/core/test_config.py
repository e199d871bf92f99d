import tomllib

import pytest
from vigtui.core import config, paths
from vigtui.core.errors import FormatError


def test_what_was_put_is_got() -> None:
    assert config.get("default_model") is None
    config.put("default_model", 'a "quoted" é')
    assert config.get("default_model") == 'a "quoted" é'


def test_other_lines_and_comments_stay() -> None:
    path = paths.config() / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text('# mine\ntheme = "dark"\ndefault_model = "old"\n\n[keys]\ndefault_model = "not this"\n')
    config.put("default_model", "new")
    assert path.read_text() == '# mine\ntheme = "dark"\ndefault_model = "new"\n\n[keys]\ndefault_model = "not this"\n'


def test_a_key_is_added_before_the_tables() -> None:
    path = paths.config() / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text("[keys]\na = 1\n")
    config.put("default_model", "x")
    assert tomllib.loads(path.read_text()) == {"default_model": "x", "keys": {"a": 1}}


def test_a_damaged_file_is_named_and_left_alone() -> None:
    path = paths.config() / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text("= nonsense")
    with pytest.raises(FormatError) as caught:
        config.put("default_model", "x")
    assert str(path) in caught.value.message
    assert path.read_text() == "= nonsense"
