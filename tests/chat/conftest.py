"""Properties of this room are about what is sent, not about how long a busy machine takes over it."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
