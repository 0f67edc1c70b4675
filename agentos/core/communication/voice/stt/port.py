"""The port behind every transcriber: it owns the worker processes, deals the streams out to them, and keeps the account.

All decisions are made in one place, a turn: what was submitted, what the workers answered and what time it is go in;
requests to workers and facts to transcribers come out. The workers' own tasks only carry bytes.

The account. A frame that was handed over is told once, and only once, as heard or as unheard. It counts as heard when its
outcome is known: its utterance was told as finished, or it is no speech. Until then its worker's death makes it unheard.
"""

import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any, Final

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup, TaskStatus
from msgspec import Struct

from actors.runtime.health import Beat, Heartbeat, PortBack, PortSilent
from actors.voice.messages import (
    Abandon,
    Finish,
    Finished,
    Hear,
    Heard,
    Listen,
    Partial,
    SpeechSilent,
    Unheard,
    Utterance,
)
from agentos.core.communication.voice.errors import UnusableExtension
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.measuring.backlog_age import BacklogAge
from agentos.core.communication.voice.measuring.durations import Durations
from agentos.core.communication.voice.sessions.door import FramesGivenUp
from agentos.core.communication.voice.stt.base import SpeechEngine
from agentos.core.communication.voice.stt.breaker import Breaker
from agentos.core.communication.voice.stt.pace import Pace
from agentos.core.communication.voice.stt.process import WorkerProcess
from agentos.core.communication.voice.stt.protocol import (
    Answer,
    Drop,
    Open,
    StreamAudio,
    StreamBroken,
    StreamEnd,
    StreamOpened,
    StreamProgress,
)
from agentos.core.communication.voice.stt.registry import Engines, EngineUnavailable
from agentos.core.communication.voice.stt.statistics import SpeechStatistics
from agentos.core.communication.voice.stt.stream import Audio, Run, Stream
from agentos.core.communication.voice.stt.worker_account import SUSPECT_SECONDS, WorkerAccount
from agentos.core.time import monotonic_ms
from machines.audio import FRAME_MS
from machines.reasons import (
    BACKLOG,
    ENGINE_FAILED,
    LATE,
    MISSING,
    NO_WORKERS,
    SPEECH_SILENT,
    WORKER_DIED,
    WORKER_HUNG,
    WORKER_SILENT,
)
from machines.restart import Intensity

log = logger(__name__)


_HEARD_EVERY_FRAMES: Final = 25
_GIVE_UP_FRAMES: Final = 50  # a second: one declaration for many frames

Work = Listen | Hear | Finish | Abandon | Heartbeat


class _Handed(Struct, gc=False):
    """The bytes of a run that waits for a turn; None when they are gone, for `reason`."""

    frames: int
    data: bytes | None
    reason: str = ""


class SpeechPort:
    """Transcribes the sessions' audio in at most `workers` processes, each with at most `streams_per_worker` streams.

    `submit` takes `Listen`, `Hear`, `Finish` and `Abandon`; the facts `Partial`, `Utterance`, `Heard`, `Unheard` and
    `Finished` go out through `tell(reply_to, fact)`, from `run`'s task. `take(session_id, first, count)` hands over the raw
    bytes of frames, in `submit`; `room(session_id, n_frames)` says that so many of them were decoded or given up. A
    session that finds no worker free waits for one.

    While turns are not taken, what is handed over of a session is bounded by `backlog_frames` too: the oldest bytes go first.

    Reasons of `Unheard`: `worker_died` and `worker_hung` (no answer for `hang_timeout_seconds`; while a process starts or an
    engine loads, `start_timeout_seconds`) for what a lost worker had of a session; `engine_failed` for all that comes after
    more crashes than `intensity` allows, for a whole window; `backlog` for the oldest when more than `backlog_frames` of a
    session wait, and for what `take` says was given up (`FramesGivenUp`); `missing` when the bytes were gone; `late` for frames
    after `Finish`; `no_workers` when `workers` is 0.
    A worker that was lost is replaced after a pause, and the streams go on with the frames that still wait.

    A `Heartbeat` is answered in the next turn, with `Beat`: turns are taken. It makes workers that owe nothing show that they
    live, within `silent_after_seconds`. Those that work have deadlines of their own; but a session that ends need not wait so
    long: `SpeechSilent` (reason `worker_silent`) is told when its worker has owed an answer for `silent_after_seconds`.

    `engines` says where workers import an engine from, `executable` is the Python that runs them. All calls are for the loop's
    thread.
    """

    def __init__(  # noqa: PLR0913 - settings of their own, all named
        self,
        *,
        take: Callable[[str, int, int], bytes],
        tell: Callable[[Any, object], None],
        post: Callable[[Any, object], None],
        room: Callable[[str, int], None],
        engines: Engines,
        workers: int,
        start_timeout_seconds: float,
        hang_timeout_seconds: float,
        backlog_frames: int,
        silent_after_seconds: float = float("inf"),
        streams_per_worker: int = 8,
        intensity: Intensity = Intensity(5, 60.0),  # noqa: B008 - an immutable tuple
        executable: str = sys.executable,
    ) -> None:
        if workers < 0 or backlog_frames < 1 or streams_per_worker < 1:
            raise ValueError(
                "workers must be 0 or more, backlog_frames and streams_per_worker 1 or more, "
                f"got {workers}, {backlog_frames} and {streams_per_worker}"
            )
        self._take = take
        self._tell = tell
        self._post_fact = post
        self._room = room
        self._registry = engines
        self._limit = workers
        self._start_timeout = start_timeout_seconds
        self._hang_timeout = hang_timeout_seconds
        self._silent_after = silent_after_seconds
        self._patience = (start_timeout_seconds, hang_timeout_seconds, min(hang_timeout_seconds, silent_after_seconds))
        self._backlog = backlog_frames
        self._streams_per_worker = streams_per_worker
        self._intensity = intensity
        self._executable = executable
        self._inbox: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._news: anyio.Event | None = None
        self._closed = False
        self._silent = False
        self._transcribers: dict[str, Any] = {}  # of sessions that have not ended here
        self._unread: dict[str, deque[_Handed]] = {}  # what came since the port is silent
        self._tasks: TaskGroup | None = None
        self._streams: dict[str, Stream] = {}
        self._touched: dict[str, Stream] = {}  # those that may have something to send or to tell
        self._unassigned: dict[str, Stream] = {}  # those without a worker
        self._workers: list[WorkerAccount] = []
        self._engines: dict[str, Breaker] = {}
        self._last_number = 0
        self._heard = 0
        self._unheard: Counter[str] = Counter()
        self._abandoned = 0
        self._stray = 0
        self._utterances = 0
        self._started = 0
        self._died = 0
        self._hung = 0
        self._latencies = Durations()
        self._pace = Pace()
        self._came = 0  # frames that were to be decoded
        self._age = BacklogAge()

    def submit(self, work: Work) -> None:
        """Hand work over; never blocks and never tells. Before `run` it waits; after `run` has ended it is ignored."""
        if self._closed:
            return
        if type(work) is Hear:
            self._post(self._hear, work, self._fetch(work))
        elif isinstance(work, Listen):
            self._transcribers[work.session_id] = work.reply_to
            self._post(self._listen, work)
        elif isinstance(work, Finish):
            self._post(self._finish, work)
            if self._silent and work.session_id in self._transcribers:
                self._post_fact(self._transcribers[work.session_id], SpeechSilent(SPEECH_SILENT))
        elif isinstance(work, Abandon):
            self._transcribers.pop(work.session_id, None)
            self._post(self._abandon, work)
        elif isinstance(work, Heartbeat):
            self._post(self._beat, work)
        else:
            raise TypeError(
                f"the speech-to-text port takes Listen, Hear, Finish, Abandon and Heartbeat, not {type(work).__name__}"
            )

    def take_news(self, news: PortSilent | PortBack) -> None:
        """Learn what the health watch found: whether turns are taken.

        While they are not, `SpeechSilent` (reason `speech_silent`) goes to the transcriber of each session through `post`,
        now and with its `Finish`: one that finishes need not wait. What was handed over is dealt with when turns go on.
        """
        self._silent = isinstance(news, PortSilent)
        self._unread.clear()
        if self._silent:
            for transcriber in list(self._transcribers.values()):
                self._post_fact(transcriber, SpeechSilent(SPEECH_SILENT))

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; that is how the port is closed.

        Cancelled, it kills and reaps its workers within seconds and tells nothing more. It can run once.
        """
        if self._closed or self._tasks is not None:
            raise RuntimeError("this port has run already; make a new one")
        self._news = anyio.Event()
        try:
            async with anyio.create_task_group() as self._tasks:
                task_status.started()
                while True:
                    now = _now()
                    self._news = anyio.Event()
                    self._turn(now)
                    await anyio.lowlevel.checkpoint()
                    if not self._inbox:
                        with anyio.move_on_after(self._next_deadline(now) - _now()):
                            await self._news.wait()
        finally:
            self._closed = True
            self._inbox.clear()

    def statistics(self) -> SpeechStatistics:
        """A snapshot."""
        undecoded, wait_seconds = self._backlog_now()
        return SpeechStatistics(
            worker_pids=tuple(worker.process.pid for worker in self._workers if worker.process.pid is not None),
            workers=len(self._workers),
            streams=len(self._streams),
            queued_frames=sum(stream.queued for stream in self._streams.values()),
            frames_under_way=sum(stream.under_way for stream in self._streams.values()),
            undecoded_frames=undecoded,
            wait_seconds=wait_seconds,
            heard_frames=self._heard,
            unheard_frames=tuple(sorted(self._unheard.items())),
            abandoned_frames=self._abandoned,
            stray_frames=self._stray,
            utterances=self._utterances,
            workers_started=self._started,
            workers_died=self._died,
            workers_hung=self._hung,
            latencies=self._latencies.statistics(),
        )

    def _backlog_now(self) -> tuple[int, float]:
        """The frames that are still to be decoded, and how long that will take."""
        now = _now()
        undecoded = sum([stream.undecoded for stream in self._streams.values()])
        age = self._age.look(now, self._came, self._came - undecoded)
        sound = [worker for worker in self._workers if not worker.hung]
        working = sum([worker.working_seconds(now) for worker in sound])
        return undecoded, max(age, self._pace.seconds_for(undecoded, len(sound), working))

    @property
    def wait_seconds(self) -> float:
        """How long the workers will take for what waits for them; see `SpeechStatistics`."""
        return self._backlog_now()[1]

    # --- what comes in ---------------------------------------------------------------------------------------------

    def _post(self, step: Callable[..., None], *arguments: Any) -> None:
        self._inbox.append((step, arguments))
        if self._news is not None:
            self._news.set()

    def _fetch(self, work: Hear) -> _Handed:
        try:
            handed = _Handed(work.count, self._take(work.session_id, work.first, work.count))
        except FramesGivenUp:
            return _Handed(work.count, None, BACKLOG)
        except LookupError:
            return _Handed(work.count, None, MISSING)
        if self._silent:
            self._bound(work.session_id, handed)
        return handed

    def _bound(self, session_id: str, newest: _Handed) -> None:
        """Turns are not taken: let go of a session's oldest bytes, but not of the newest, when too many wait."""
        unread = self._unread.setdefault(session_id, deque())
        unread.append(newest)
        while len(unread) > 1 and sum([handed.frames for handed in unread]) > self._backlog:
            oldest = unread.popleft()
            oldest.data, oldest.reason = None, BACKLOG

    def _listen(self, work: Listen) -> None:
        stream = self._streams.get(work.session_id)
        if stream is not None:  # its transcriber was restarted: only where the facts go has changed
            stream.reply_to = work.reply_to
            return
        stream = Stream(work, Breaker(self._intensity))
        self._engines.setdefault(stream.engine, Breaker(self._intensity))
        self._streams[work.session_id] = self._unassigned[work.session_id] = stream

    def _hear(self, work: Hear, handed: _Handed) -> None:
        data, fetched = handed.data, handed.reason != MISSING
        stream = self._streams.get(work.session_id)
        known = work.count if stream is None else max(0, min(work.count, stream.expected - work.first))
        self._stray += known
        if fetched and known:
            self._room(work.session_id, known)
        if stream is None or known == work.count:
            return
        first, count = work.first + known, work.count - known
        self._touched[work.session_id] = stream
        if stream.finishing or data is None:
            if fetched:
                self._room(work.session_id, count)
            stream.expected = first + count
            self._lose(stream, [Run(first, count)], handed.reason or LATE)
            return
        stream.hand_over(Audio(first, count, data[known * stream.frame_bytes :]), monotonic_ms())
        self._came += count
        if stream.queued > self._backlog:
            # Some more than needed, so that one declaration is for many frames.
            self._give_up_queue(stream, BACKLOG, keep=self._backlog - min(_GIVE_UP_FRAMES, self._backlog // 4))

    def _beat(self, work: Heartbeat) -> None:
        self._tell(work.reply_to, Beat(work.number, work.port))
        for worker in self._workers:
            worker.ask(_now())

    def _finish(self, work: Finish) -> None:
        stream = self._streams.get(work.session_id)
        if stream is not None:
            stream.finishing = True
            self._touched[work.session_id] = stream

    def _abandon(self, work: Abandon) -> None:
        stream = self._streams.get(work.session_id)
        if stream is None:
            return
        worker, number = stream.worker, stream.number
        lost, untaken = stream.lose_worker()
        given_up = sum(run.frames for run in stream.give_up_oldest(keep=0))
        self._abandoned += given_up + sum(run.frames for run in lost)
        self._forget(stream)
        if worker is not None:
            worker.streams.pop(number, None)
            worker.send(Drop(number), _now())
        if untaken + given_up:
            self._room(work.session_id, untaken + given_up)

    def _answer(self, worker: WorkerAccount, answer: Answer) -> None:
        now = _now()
        worked = None if worker.opening else worker.working_seconds(now)
        worker.answered(answer, now)
        stream = (
            None
            if not isinstance(answer, StreamOpened | StreamProgress | StreamBroken)
            else worker.streams.get(answer.stream)
        )
        if stream is None:
            return
        self._touched[stream.session_id] = stream
        if isinstance(answer, StreamOpened):
            stream.opened = True
        elif isinstance(answer, StreamProgress):
            self._progress(worker, stream, answer, worked)
        elif isinstance(answer, StreamBroken):
            self._engine_failed(stream, answer.error)
            del worker.streams[stream.number]
            self._lost_worker(stream, ENGINE_FAILED)

    @staticmethod
    def _engine_failed(stream: Stream, error: str) -> None:
        log.warning("stt_engine_failed", session_id=stream.session_id, engine=stream.engine, error=error)
        stream.breaker.crashed(_now())

    def _progress(self, worker: WorkerAccount, stream: Stream, answer: StreamProgress, worked: float | None) -> None:
        decoded = stream.taken(answer.taken)
        if worked is not None:  # an engine that is loaded meanwhile takes time of its own
            self._pace.worked(decoded, worked)
        if decoded:
            self._room(stream.session_id, decoded)
            self._latencies.add_ms(monotonic_ms() - stream.decoded_came_ms)
        for final in answer.finals:
            self._utterances += 1
            self._heard += stream.settle(min(answer.settled, -(-final.end_ms // FRAME_MS)))
            heard = self._newly_heard(stream)
            self._tell(stream.reply_to, Utterance(final.text, final.start_ms, final.end_ms, final.words, heard))
        if answer.partial is not None:
            self._tell(stream.reply_to, Partial(answer.partial))
        self._heard += stream.settle(answer.settled)
        if answer.ended:
            del worker.streams[stream.number]
            stream.lose_worker()

    def _ended(self, worker: WorkerAccount, reason: str) -> None:
        if worker not in self._workers:
            return  # it was given up before it ended
        self._workers.remove(worker)
        if worker.hung:
            self._hung += 1
        else:
            self._died += 1
        now = _now()
        log.warning(
            "stt_worker_lost", pid=worker.process.pid, hung=worker.hung, reason=reason, streams=len(worker.streams)
        )
        for engine in {stream.engine for stream in worker.streams.values()}:
            self._engines[engine].crashed(now)
        for stream in worker.streams.values():
            self._lost_worker(stream, WORKER_HUNG if worker.hung else WORKER_DIED)
        worker.streams.clear()

    def _lost_worker(self, stream: Stream, reason: str) -> None:
        lost, untaken = stream.lose_worker()
        if untaken:
            self._room(stream.session_id, untaken)
        self._lose(stream, lost, reason)
        self._unassigned[stream.session_id] = self._touched[stream.session_id] = stream

    # --- a turn ----------------------------------------------------------------------------------------------------

    def _turn(self, now: float) -> None:
        for _ in range(len(self._inbox)):
            step, arguments = self._inbox.popleft()
            step(*arguments)
        for worker in list(self._workers):
            self._check_on(worker, now)
        for stream in list(self._unassigned.values()):
            self._house(stream, now)
        touched, self._touched = self._touched, {}
        for stream in touched.values():
            if self._streams.get(stream.session_id) is stream:
                self._serve(stream, now)

    def _check_on(self, worker: WorkerAccount, now: float) -> None:
        if now >= worker.silent_at(self._silent_after) and (waiting := worker.waited_for()):
            if worker.doubted:
                for stream in waiting:
                    stream.told_silent = True
                    self._tell(stream.reply_to, SpeechSilent(WORKER_SILENT))
            worker.doubted = True
        if now < worker.deadline(*self._patience):
            return
        if worker.hung:
            self._ended(worker, "it can't be killed")
        elif not worker.suspect:
            worker.suspect = True
        else:
            worker.hung = True
            worker.since = now
            worker.process.kill()

    def _house(self, stream: Stream, now: float) -> None:
        """Find a worker for a stream, start one, or give its audio up."""
        engine = self._engine(stream, now)
        hopeless = self._hopeless(stream, now)
        if hopeless is not None:
            if stream.finishing or stream.queued >= _GIVE_UP_FRAMES:
                self._give_up_queue(stream, hopeless, keep=0)
                self._touched[stream.session_id] = stream
            return
        if engine is None or (stream.finishing and not stream.queued):
            return  # nothing that a worker could do, now
        worker = self._free_worker(now)
        if worker is None:
            return
        del self._unassigned[stream.session_id]
        self._last_number += 1
        stream.number = self._last_number
        stream.worker = worker
        worker.streams[stream.number] = stream
        worker.opening.add(stream.number)
        form = stream.audio_format
        opened = Open(
            stream.number,
            stream.session_id,
            engine.factory,
            engine.configuration,
            stream.options,
            form.encoding,
            form.sample_rate,
            form.channels,
        )
        worker.send(opened, now)

    def _engine(self, stream: Stream, now: float) -> SpeechEngine | None:
        """The engine of a stream, None when it is not to be tried now."""
        if now < max(stream.breaker.not_before, self._engines[stream.engine].not_before):
            return None
        try:
            return self._registry.engine(stream.engine)
        except (EngineUnavailable, UnusableExtension) as error:  # of a session that another process began
            self._engine_failed(stream, str(error))
            return None

    def _hopeless(self, stream: Stream, now: float) -> str | None:
        if not self._limit:
            return NO_WORKERS
        failed = stream.breaker.failed(now) or self._engines[stream.engine].failed(now)
        return ENGINE_FAILED if failed else None

    def _free_worker(self, now: float) -> WorkerAccount | None:
        sound = [worker for worker in self._workers if not worker.hung]
        best = min(sound, key=lambda worker: len(worker.streams), default=None)
        if (best is None or best.streams) and len(self._workers) < self._limit:
            return self._start_worker(now)
        return best if best is not None and len(best.streams) < self._streams_per_worker else None

    def _start_worker(self, now: float) -> WorkerAccount:
        assert self._tasks is not None  # noqa: S101 - turns are taken by run only
        process = WorkerProcess(
            self._executable,
            wedge_seconds=max(self._start_timeout, self._hang_timeout) + SUSPECT_SECONDS,
            on_answer=lambda answer: self._post(self._answer, worker, answer),
            on_end=lambda reason: self._post(self._ended, worker, reason),
        )
        worker = WorkerAccount(process, since=now)
        self._workers.append(worker)
        self._started += 1
        self._tasks.start_soon(process.run, name="agentos-voice-stt-worker")
        return worker

    def _serve(self, stream: Stream, now: float) -> None:
        """Send what can be sent, tell what there is to tell."""
        if stream.opened and not stream.end_sent:
            while (audio := stream.next_feed()) is not None:
                stream.worker.send(StreamAudio(stream.number, *audio), now)
            if stream.finishing and not stream.queued:
                stream.end_sent = True
                stream.worker.send(StreamEnd(stream.number), now)
        done = stream.finishing and stream.worker is None and not stream.queued
        if done or stream.settled - stream.told >= _HEARD_EVERY_FRAMES:
            self._tell_heard(stream)
        if done:
            self._forget(stream)
            self._tell(stream.reply_to, Finished())

    def _give_up_queue(self, stream: Stream, reason: str, *, keep: int) -> None:
        lost = stream.give_up_oldest(keep)
        if lost:
            self._room(stream.session_id, sum(run.frames for run in lost))
            self._lose(stream, lost, reason)

    def _lose(self, stream: Stream, runs: Iterable[Run], reason: str) -> None:
        self._tell_heard(stream)
        for run in runs:
            self._unheard[reason] += run.frames
            self._tell(stream.reply_to, Unheard(run.first, run.frames, reason))

    def _tell_heard(self, stream: Stream) -> None:
        heard = self._newly_heard(stream)
        if heard is not None:
            self._tell(stream.reply_to, heard)

    def _newly_heard(self, stream: Stream) -> Heard | None:
        """What is to be told as heard since that was done last, which counts as told with this."""
        if stream.settled <= stream.told:
            return None
        stream.told = stream.settled
        return Heard(stream.settled, stream.take_untold())

    def _forget(self, stream: Stream) -> None:
        for streams in (self._streams, self._unassigned, self._touched, self._transcribers):
            streams.pop(stream.session_id, None)

    def _next_deadline(self, now: float) -> float:
        """When the next turn is due, should nothing happen: whatever was still to come at the last one, at `now`."""
        deadlines = [worker.deadline(*self._patience) for worker in self._workers]
        deadlines += [worker.silent_at(self._silent_after) for worker in self._workers if worker.waited_for()]
        for stream in self._unassigned.values():
            at = max(stream.breaker.not_before, self._engines[stream.engine].not_before)
            if at > now:
                deadlines.append(at)
        return min(deadlines, default=float("inf"))


def _now() -> float:
    return monotonic_ms() / 1000
