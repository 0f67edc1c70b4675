"""The age of the oldest waiting work of a port, estimated from counts alone."""

from collections import deque
from typing import Final

LOOKS_KEPT: Final = 1024  # of a backlog that never clears; beyond, every second look is dropped


class BacklogAge:
    """Keeps a lower bound of the oldest work's age, from occasional looks at how much work has come and how much is done.

    If more work had come at an earlier look than is done now, some of that work has waited since that look at least. That holds
    in any order of work. If work is done in the order in which it came, the bound is too small by at most the time between two
    looks.
    """

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int]] = deque()  # the time at which each count of arrived work was first seen

    def look(self, now: float, came: int, done: int) -> float:
        """Note that at `now` seconds `came` pieces of work have come since the start, and `done` are done, in whatever way.

        Returns the age in seconds, 0 if no work waits."""
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
