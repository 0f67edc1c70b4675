"""Whether there is room for one more call, by what is measured and not only by count.

`Meter` takes a sample four times a second, in a task of its own: how late the loop wakes it, how long work has waited for the
dispatcher and for the media thread, how long speech to text will take for what it has, how much memory the process has, which
ports give no sign of life. `Admission` holds the sample against the limits. Both are cheap and out of the way of every call;
what is asked when a call comes in is only what the last sample said.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from resource import getpagesize
from typing import Final, NamedTuple

from agentos.core.communication.voice.errors import Overloaded
from agentos.core.communication.voice.measuring.backlog_age import BacklogAge
from agentos.core.communication.voice.measuring.looks import Look
from agentos.core.communication.voice.measuring.loop_lag import LoopLag
from agentos.core.communication.voice.open_files import calls_below, next_descriptor, open_files_limit
from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.time import monotonic_ms

SAMPLE_SECONDS: Final = 0.25
LASTING_SAMPLES: Final = 4  # a second: a loop that was held up once is no reason to refuse calls
RESUME_SHARE: Final = 0.8  # of a limit; between the two, what was refused stays refused, so that it doesn't flap
RETRY_SECONDS: Final = {
    "sessions": 1.0,
    "files": 1.0,
    "loop": 1.0,
    "mailboxes": 2.0,
    "memory": 10.0,  # it goes with the calls
    "ports": 5.0,  # what hangs is a disk, most likely
    "speech": 5.0,
}

_STATM = Path("/proc/self/statm")
_MEMINFO = Path("/proc/meminfo")
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True, slots=True)
class Load:
    """What was measured last.

    `loop_lag_seconds` is how late the event loop came to a task that was due, `mailbox_age_seconds` how long the oldest work
    has waited for its turn, in the actors or in the media thread, `speech_wait_seconds` how long speech to text will take for
    the audio that it has, at its pace; all three the least of the last second, so that only what lasts counts. `memory_bytes`
    is what the process has in memory, without its worker processes. `silent_ports` are those that did not answer their last
    heartbeat in time.
    """

    loop_lag_seconds: float = 0.0
    mailbox_age_seconds: float = 0.0
    memory_bytes: int = 0
    silent_ports: tuple[str, ...] = ()
    speech_wait_seconds: float = 0.0


class QueueProgress(NamedTuple):
    """How much work was done since the start, and how much waits, in order."""

    done: int
    waiting: int


class Meter:
    """Measures until it is cancelled. `progress` are the queues whose oldest work counts, `silent_ports` tells what the health
    watch found, `speech_wait` how many seconds of work speech to text has; `lag` is the loop's."""

    def __init__(
        self,
        *progress: Callable[[], QueueProgress],
        silent_ports: Callable[[], tuple[str, ...]] = tuple,
        speech_wait: Callable[[], float] = float,
    ) -> None:
        self._queues = tuple((BacklogAge(), ask) for ask in progress)
        self.lag = LoopLag(interval_seconds=SAMPLE_SECONDS)
        self._lags: deque[float] = deque([0.0], LASTING_SAMPLES)
        self._ages: deque[float] = deque([0.0], LASTING_SAMPLES)
        self._waits: deque[float] = deque([0.0], LASTING_SAMPLES)
        self._silent_ports = silent_ports
        self._speech_wait = speech_wait
        self._looks = {what: Look(what) for what in ("queues", "memory", "ports", "speech")}
        self.load = Load(memory_bytes=memory_bytes())

    async def run(self) -> None:
        """Take samples for as long as the service runs."""
        while True:
            self._lags.append(await self.lag.measure() / 1000)
            memory, silent = self.load.memory_bytes, self.load.silent_ports  # the last ones, where none are to be had
            with self._looks["queues"]:
                self._ages.append(max(self._queue_ages(), default=0.0))
            with self._looks["memory"]:
                memory = memory_bytes()
            with self._looks["ports"]:
                silent = self._silent_ports()
            with self._looks["speech"]:
                self._waits.append(self._speech_wait())
            self.load = Load(min(self._lags), min(self._ages), memory, silent, min(self._waits))

    def _queue_ages(self) -> Iterator[float]:
        now = monotonic_ms() / 1000
        for backlog, ask in self._queues:
            done, waiting = ask()
            yield backlog.look(now, done + waiting, done)


class Admission:
    """Decides, from what was measured, whether one more call is let in."""

    def __init__(self, settings: VoiceSettings) -> None:
        total = settings.memory_limit_bytes or memory_limit_bytes()
        self._max_sessions = settings.max_sessions
        self._limits: Mapping[str, float] = {
            "loop": settings.max_loop_lag_seconds,
            "mailboxes": settings.max_mailbox_age_seconds,
            "memory": total * settings.memory_watermark,
            "ports": 0,
            "speech": settings.stop_timeout_seconds,
        }
        self._refusing: set[str] = set()

    def check(self, sessions: int, load: Load, ports: Collection[str]) -> None:
        """Raises `Overloaded`, which says what is short and when to try again, when there is no room beside `sessions`, or
        one of the `ports` that the call needs is silent or, being "speech", too far behind."""
        if sessions >= self._max_sessions:
            problem = f"{self._max_sessions} sessions are running, the most that may"
            raise Overloaded(problem, retry_after_seconds=RETRY_SECONDS["sessions"])
        if next_descriptor() >= calls_below(open_files_limit()):
            problem = "no more files can be opened: the limit (ulimit -n) is too low for so many calls and connections"
            raise Overloaded(problem, retry_after_seconds=RETRY_SECONDS["files"])
        silent = tuple(port for port in load.silent_ports if port in ports)
        measured = {
            "loop": load.loop_lag_seconds,
            "mailboxes": load.mailbox_age_seconds,
            "memory": load.memory_bytes,
            "ports": len(silent),
            "speech": load.speech_wait_seconds,
        }
        self._refusing = {what for what, value in measured.items() if value > self._bound(what)}
        for what, value in measured.items():
            if what in self._refusing and (what != "speech" or what in ports):
                problem = _problem(what, value, self._limits[what], silent)
                raise Overloaded(problem, retry_after_seconds=RETRY_SECONDS[what])

    def speech_behind(self, load: Load) -> str:
        """Why a call would not be transcribed in time, were it let in; "" when it would."""
        wait = load.speech_wait_seconds
        if wait <= self._bound("speech"):
            self._refusing.discard("speech")
            return ""
        self._refusing.add("speech")
        return _problem("speech", wait, self._limits["speech"], ())

    def _bound(self, what: str) -> float:
        return self._limits[what] * (RESUME_SHARE if what in self._refusing else 1)


def _problem(what: str, value: float, limit: float, silent_ports: tuple[str, ...]) -> str:
    if what == "ports":
        return " and ".join(f"the {port} port does not answer" for port in silent_ports)
    if what == "memory":
        return f"the process has {value / 2**20:,.0f} MiB in memory, and calls are taken up to {limit / 2**20:,.0f} MiB"
    if what == "speech":
        return f"speech to text has {value:.1f} s of work waiting, and can catch up with {limit:g} s when a call ends"
    if what == "loop":
        return f"the event loop is {value:.2f} s late, and calls are taken up to {limit:g} s"
    return f"work inside has waited {value:.1f} s for its turn, and calls are taken up to {limit:g} s"


def memory_bytes() -> int:
    """What this process has in memory (its resident set)."""
    return int(_STATM.read_bytes().split()[1]) * getpagesize()


def memory_limit_bytes() -> int:
    """The memory that there is for this process: its container's limit, or what the machine has."""
    total = next(
        int(line.split()[1]) * 1024 for line in _MEMINFO.read_text().splitlines() if line.startswith("MemTotal")
    )
    for path in _CGROUP_LIMITS:
        try:
            return min(total, int(path.read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return total
