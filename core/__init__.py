"""What every room stands on: errors, paths, configuration, progress, text safety, translation."""

__version__ = "0.1.0"
