"""A Hugging Face hub on 127.0.0.1, with faults to order."""

from .fault import Fault
from .server import Hub

__all__ = ["Fault", "Hub"]
