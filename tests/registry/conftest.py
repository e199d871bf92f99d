"""The hub for the tests of the registry."""

from ..hub.fixture import hub as hub
