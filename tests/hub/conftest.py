"""The hub for the tests of the hub itself."""

from .fixture import hub as hub
