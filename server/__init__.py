"""The OpenAI-compatible HTTP face of any backend."""
