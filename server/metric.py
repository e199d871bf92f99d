"""What the server counts and measures, as Prometheus reads it (text format 0.0.4)."""

from collections import Counter
from dataclasses import dataclass, field

from ..backends.base import Done

BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds in seconds of the histogram of waits for the first token."""


@dataclass(slots=True)
class Metrics:
    """Counted since the start. `queued` and `running` are of this moment."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cancelled: int = 0
    queued: int = 0
    running: int = 0
    models: int = 0
    first: list[int] = field(default_factory=lambda: [0] * len(BOUNDS))
    first_count: int = 0
    first_sum: float = 0.0

    def answered(self, done: Done) -> None:
        """Count a finished answer."""
        self.prompt_tokens += done.prompt_tokens
        self.cached_tokens += done.cached_tokens
        self.completion_tokens += done.completion_tokens
        self.cancelled += done.finish_reason == "cancelled"

    def began(self, seconds: float) -> None:
        """Count the wait of a client for its first token, in seconds."""
        self.first_count += 1
        self.first_sum += seconds
        for i, bound in enumerate(BOUNDS):
            self.first[i] += seconds <= bound

    def text(self) -> str:
        """Give the page that Prometheus reads."""
        lines = ["# HELP vigtui_requests_total Requests answered.", "# TYPE vigtui_requests_total counter"]
        for (path, status), count in sorted(self.requests.items()):
            lines.append(f'vigtui_requests_total{{path="{path}",status="{status}"}} {count}')
        for name, kind, help, value in self._plain():
            lines += [f"# HELP vigtui_{name} {help}", f"# TYPE vigtui_{name} {kind}", f"vigtui_{name} {value}"]
        name = "vigtui_first_token_seconds"
        lines += [f"# HELP {name} From request to first token.", f"# TYPE {name} histogram"]
        lines += [f'{name}_bucket{{le="{bound:g}"}} {count}' for bound, count in zip(BOUNDS, self.first, strict=True)]
        lines += [f'{name}_bucket{{le="+Inf"}} {self.first_count}', f"{name}_sum {self.first_sum:.6f}"]
        return "\n".join([*lines, f"{name}_count {self.first_count}", ""])

    def _plain(self) -> tuple[tuple[str, str, str, int], ...]:
        return (
            ("prompt_tokens_total", "counter", "Tokens of prompts.", self.prompt_tokens),
            ("cached_tokens_total", "counter", "Tokens of prompts that the cache held.", self.cached_tokens),
            ("completion_tokens_total", "counter", "Tokens generated.", self.completion_tokens),
            ("cancelled_total", "counter", "Answers stopped because the client went away.", self.cancelled),
            ("requests_in_flight", "gauge", "Answers being generated.", self.running),
            ("queue_length", "gauge", "Requests waiting for their turn.", self.queued),
            ("models_loaded", "gauge", "Models in memory.", self.models),
        )
