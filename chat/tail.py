"""The policies "tail-tokens" and "tail-chars": the oldest text is cut off wherever it must be."""

from collections.abc import Sequence
from dataclasses import replace

from .origin import trace
from .policy import Rounds, Shot, boundary
from .render import Draft


class Tail(Rounds):
    """Rounds are dropped as far as needed, and of the last one dropped as many characters are kept as fit.

    The system text, pinned rounds and the last message are never cut. A template that does not mark where a cut may
    be (`cut`), or a conversation that does not begin with the user, only drops rounds.
    """

    def best(self, least: Shot) -> Shot:
        """Give the longest tail that the window allows."""
        shot = super().best(least)
        gone = set(shot.dropped)
        step = next((n for n, one in enumerate(self.order) if one[0] not in gone), self.steps)
        return self._longer(step, shot) if step else shot

    def _longer(self, step: int, shot: Shot) -> Shot:
        """Give more than `shot`, which lacks the first `step` rounds: the end of the youngest of them."""
        one = self.order[step - 1]
        kept = sorted(self.order[step - 1 :] + self.window.pinned)
        whole = self.at(step - 1).draft
        if len(whole.segments) != len(kept) + 3:  # before the rounds, each of them, the last one, after it
            return shot
        place = 1 + kept.index(one)
        segment = whole.segments[place]
        cuts = whole.guard.places(segment)

        def at(n: int) -> Shot:
            return self._cut(whole, place, segment[cuts[n] :]) if n < len(cuts) else shot

        best = boundary(len(cuts) // 2, len(cuts), at, self.window.allows, shot, first=1)
        return best if best is shot else self._named(best, shot, step, place)

    def _cut(self, whole: Draft, place: int, tail: str) -> Shot:
        """Send `whole` with `tail` in the place of a round, less what would complete a special token."""
        before, after = "".join(whole.segments[:place]), "".join(whole.segments[place + 1 :])
        meant = whole.guard.meant
        while tail and meant(before + tail + after) != meant(before) + meant(tail + after):
            tail = tail[1:]
        return self.window.measure(whole, (*whole.segments[:place], tail, *whole.segments[place + 1 :]))

    def _named(self, best: Shot, shot: Shot, step: int, place: int) -> Shot:
        """Say which messages `best`, which keeps an end of the round before `step`, leaves out and shortens."""
        window = self.window
        whole = best.draft
        stay = sorted(i for n in (window.head, *self.order[step - 1 :], *window.pinned, window.last) for i in n)
        start = sum(map(len, whole.segments[:place]))
        cut = start + len(whole.text) - len(best.text)
        spans = {stay[span.message - self._extra(whole, stay)]: span for span in trace(whole, window.input)}
        one: Sequence[int] = self.order[step - 1]
        unseen = {i for i in one if i in spans and spans[i].end <= cut}
        shortened = tuple(i for i in one if i not in unseen and (i not in spans or spans[i].start < cut))
        dropped = tuple(i for i in shot.dropped if i not in one or i in unseen)
        return replace(best, dropped=dropped, shortened=shortened)

    def _extra(self, whole: Draft, stay: Sequence[int]) -> int:
        """How many messages the draft has more than were given: the format's own system text, if any."""
        return len(whole.messages) - len(stay)
