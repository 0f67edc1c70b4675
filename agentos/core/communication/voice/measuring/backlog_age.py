"""How long the oldest of what waits at a port has waited, found out from counts alone."""

from collections import deque
from typing import Final

LOOKS_KEPT: Final = 1024  # of a backlog that never clears; then every second look is forgotten


class BacklogAge:
    """Looks now and then at how much has come in and how much of it is done, and knows a lower bound of the oldest one's age.

    What had come in at one look and is more than what is done now, has not all been done: something of it has waited since then
    at least. That holds in whatever order things are done. In the order in which they came, the bound is too small by no more
    than the time between two looks.
    """

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int]] = deque()  # when it was first seen that so many had come

    def look(self, now: float, came: int, done: int) -> float:
        """At `now` seconds, `came` have come in since the start and `done` of them are done; the age in seconds, 0 when nothing
        waits, whatever became of what had come."""
        looks = self._looks
        if came <= done:
            looks.clear()
            return 0.0
        if not looks or looks[-1][1] < came:
            looks.append((now, came))
        while looks and looks[0][1] <= done:
            looks.popleft()
        if len(looks) > LOOKS_KEPT:
            self._looks = looks = deque([look for at, look in enumerate(looks) if not at % 2])
        return now - looks[0][0] if looks else 0.0
