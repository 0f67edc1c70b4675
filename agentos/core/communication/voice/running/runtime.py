"""What runs behind the service: its ports, the actor system, and how both are started, watched and ended in order."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from actors.runtime.mailbox import Ref
from actors.runtime.system import ActorSystem, AskTimeout, SlowStep, SlowSteps, SystemFailed, Token
from actors.voice.messages import Ended, Stop, Unawaited
from actors.voice.supervisor import control_bound
from agentos.core.communication.voice.errors import (
    Draining,
    EvidenceUnavailable,
    ServiceClosed,
    StopNotConfirmed,
)
from agentos.core.communication.voice.logs import logger, set_level
from agentos.core.communication.voice.running.calls import Host
from agentos.core.communication.voice.running.cancellation import close_sheltered, open_files, start
from agentos.core.communication.voice.running.control.socket import ControlSocket
from agentos.core.communication.voice.running.end_without_actors import end_at_once, end_without_actors
from agentos.core.communication.voice.running.inspection import ServiceInspector
from agentos.core.communication.voice.running.legs import Legs
from agentos.core.communication.voice.running.resources import (
    CLOSING_GRACE_SECONDS,
    EndedHook,
    Extensions,
    ServiceResources,
    SessionHook,
)
from agentos.core.communication.voice.sessions.directory import Directory, Listing
from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.time import monotonic_seconds
from machines.evidence import EvidenceRecord
from machines.policy import VoicePolicy
from machines.session import EndReason, VoiceSession, VoiceSessionState

log = logger(__name__)

CUT_OFF_PROBLEM = "the tasks of the voice service were cancelled"


class ServiceRuntime:
    """Runs the sessions of one service, once. `on_started` and `on_stopped` get the snapshots of sessions that did, and
    `on_stopped` their events. The `host` is told of calls, `legs` are looked after."""

    def __init__(
        self,
        settings: VoiceSettings,
        policy: VoicePolicy,
        extensions: Extensions,
        on_started: SessionHook,
        on_stopped: EndedHook,
        host: Host,
        legs: Legs,
    ) -> None:
        seconds = settings.slow_step_seconds
        self.system = ActorSystem(
            control_bound=control_bound(settings.max_sessions, settings.restart_limit),
            slow_steps=SlowSteps(monotonic_seconds, seconds, _tell_of_slow) if seconds else None,
        )
        self.supervisor: Ref
        self._settings = settings
        self._policy = policy
        self._extensions = extensions
        self._on_started = on_started
        self._on_stopped = on_stopped
        self._host = host
        self._legs = legs
        self._closing: anyio.Event | None = None
        self._closed = False
        self._draining = anyio.Event()
        self._ended = anyio.Event()
        self._resources: ServiceResources | None = None
        self._inspector: ServiceInspector | None = None
        self._failure: str | None = None
        self._cut_off = False  # by a cancellation that no shield held off
        self._actors_ended = False
        self._waits: set[anyio.CancelScope] = set()  # for the actors; over when they have ended

    # --- its life --------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run until closed or cancelled; see `AsyncVoiceService.run`."""
        if self._closing is not None or self._closed:
            raise ServiceClosed("a service runs once; create a new one")
        self._closing = anyio.Event()
        if "log_level" in self._settings.model_fields_set:
            set_level(self._settings.log_level)
        resources: ServiceResources | None = None
        try:
            files = await open_files(self._settings, self._extensions.store)
            resources = ServiceResources(
                files, self._settings, self.system, self._extensions, self._started, self._on_stopped
            )
            resources.open_part_ports(self.system)
            ready = anyio.Event()
            async with anyio.create_task_group() as group:
                group.start_soon(self._serve, resources, ready)
                try:
                    await ready.wait()
                    task_status.started()
                    await self._closing.wait()
                finally:
                    self._closed = True
                    self._closing.set()
        finally:
            self._closed = True
            self._host.end()  # done long ago, too
            try:
                if resources is not None:
                    resources.close()  # done long ago, unless `_serve` was cancelled before its first step
            finally:
                self._ended.set()

    async def _serve(self, resources: ServiceResources, ready: anyio.Event) -> None:
        """Run the ports and the actors until the service closes, and end them in order.

        In a task of its own, sheltered: asyncio's own cancellation knows no shield, and a host may cancel `run` again while
        its sessions are being stopped. Who cancels all tasks of an asyncio loop, as a second Ctrl-C does, gets in here too;
        what is interrupted is ended at once, without another await.
        """
        assert self._closing is not None  # noqa: S101 - set by `run`
        with anyio.CancelScope(shield=True):
            try:
                async with anyio.create_task_group() as group:
                    system = anyio.CancelScope(shield=True)
                    try:
                        await self._begin(group, system, resources)
                        ready.set()
                        await self._closing.wait()
                    finally:
                        self.close()
                        with anyio.CancelScope(shield=True):
                            await self._end_sessions(resources)
                        self._host.end()
                        self._legs.end()
                        system.cancel()
                        group.cancel_scope.cancel()
            finally:
                with anyio.CancelScope(shield=True):
                    await close_sheltered(resources)

    async def _begin(self, group: TaskGroup, system: anyio.CancelScope, resources: ServiceResources) -> None:
        """Start everything that runs beside the sessions; the actors run until `system` is cancelled."""
        await start(group, self._drive, system)
        await start(group, resources.speech.run)
        self.supervisor = resources.spawn_supervisor(self.system, self._policy)
        resources.spawn_health_watch(self.system)
        self._resources = resources
        self._inspector = ServiceInspector(self.system, resources, lambda: not self.ready)
        group.start_soon(self._inspector.run)
        if self._settings.control_socket == "on":
            await start(group, ControlSocket(self._inspector, self._settings.home).run)
        group.start_soon(self._close_when_drained, resources.directory)
        group.start_soon(resources.directory.run)
        group.start_soon(resources.meter.run)
        group.start_soon(resources.home.run)
        await start(group, self._host.run)
        await start(group, self._legs.run)

    async def _end_sessions(self, resources: ServiceResources) -> None:
        patience = self._settings.evidence_timeout_seconds
        try:
            if self._failure is None:
                await self._stop_all(resources)
            if self._cut_off:
                end_at_once(resources, CUT_OFF_PROBLEM, patience)
            elif self._failure is not None:  # before, or while they were being stopped
                await end_without_actors(resources, self._failure, patience)
            elif len(resources.directory):
                await end_without_actors(resources, "it did not stop within all its deadlines", patience)
        except BaseException:
            end_at_once(resources, CUT_OFF_PROBLEM, patience)
            raise

    async def _drive(
        self, scope: anyio.CancelScope, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Run the actors until `scope` is cancelled: the sessions still need them when the host has cancelled the service.

        When it is over nobody goes on waiting for an actor. When the actor system fails, or its task is cancelled past every
        shield, the service takes no more calls.
        """
        try:
            with scope:
                await self.system.run(task_status=task_status)
        except BaseException as error:
            self._cut_off = not isinstance(error, SystemFailed)
            self._failure = CUT_OFF_PROBLEM if self._cut_off else str(error)
            self._closed = True
            raise
        finally:
            self._actors_ended = True
            for waiting in self._waits:
                waiting.cancel()

    def close(self) -> None:
        """Have `run` stop every session and end."""
        if self._closing is not None:
            self._closing.set()
        else:
            self._ended.set()
        self._closed = True

    def drain(self) -> None:
        """Take no new calls, and close when those that run have ended or had their time; now, when it drains already."""
        if self._closing is None or self._draining.is_set():
            self.close()
        self._draining.set()

    async def _close_when_drained(self, directory: Directory) -> None:
        await self._draining.wait()
        with anyio.move_on_after(self._settings.drain_timeout_seconds):
            empty = anyio.Event()
            directory.when_empty(empty.set)
            await empty.wait()
            await self._host.idle()
        self.close()

    async def wait_closed(self) -> None:
        """Wait until `run` has ended, or the service was closed before it ran."""
        await self._ended.wait()

    async def _stop_all(self, resources: ServiceResources) -> None:
        """Stop what runs, all at once, within the deadlines that each session has."""
        with self._while_actors_run(), anyio.move_on_after(self._stop_seconds()):
            async with anyio.create_task_group() as group:
                for session in resources.directory.sessions():
                    listing = resources.directory.listing(session.session_id)
                    if listing is not None:
                        group.start_soon(self._shut_down, listing)
            empty = anyio.Event()  # those that are being created are stopped as soon as they are there
            resources.directory.when_empty(empty.set)
            await empty.wait()

    async def _shut_down(self, listing: Listing) -> None:
        with suppress(ServiceClosed):  # when the actors fail, sessions are ended without them
            await self.stop(listing, EndReason.SHUTDOWN)

    def _started(self, session: VoiceSession) -> None:
        listing = self._resources.directory.listing(session.session_id) if self._resources is not None else None
        if listing is not None:
            self._host.began(listing, session)
        if listing is not None and listing.ref is not None and (listing.unwanted or self._closed):
            reason = EndReason.SHUTDOWN if self._closed else EndReason.STOPPED
            self.system.post(listing.ref, Stop(reason, 0))
        self._on_started(session)

    # --- for the service -------------------------------------------------------------------------------------------

    def resources(self) -> ServiceResources:
        """What it runs on. Raises `ServiceClosed` when it does not run."""
        if self._resources is None or self._closed:
            if self._failure is not None:
                raise self._failed(self._failure)
            if self._closed:
                raise ServiceClosed
            raise ServiceClosed("the voice service is not running yet; start it first")
        return self._resources

    def note(self, record: EvidenceRecord) -> None:
        """Have a record put into the chain, also while the service closes. Raises `StoreError` when that can't be any more."""
        if self._resources is not None:
            self._resources.store_port.note(record)

    def inspector(self) -> ServiceInspector:
        """Who looks at it. Raises `ServiceClosed` when it does not run."""
        self.resources()
        assert self._inspector is not None  # noqa: S101 - made with the resources
        return self._inspector

    @property
    def ready(self) -> bool:
        """Whether new calls are taken, as far as there is room for them."""
        return self._resources is not None and not self._closed and not self._draining.is_set()

    def resources_for_a_call(self) -> ServiceResources:
        """What a new call would run on.

        Raises `Draining`, `EvidenceUnavailable` when the evidence chain does not go on from what was noted of it, and
        `ServiceClosed` as `resources` does.
        """
        if self._draining.is_set() and self._failure is None and not self._ended.is_set():
            raise Draining
        resources = self.resources()
        if resources.heads is not None and resources.heads.cut is not None:
            raise EvidenceUnavailable(resources.heads.cut)
        return resources

    def listing(self, session_id: str) -> Listing | None:
        """The running session with this id; callable from any thread."""
        return None if self._resources is None or self._closed else self._resources.directory.listing(session_id)

    async def stop(self, listing: Listing, reason: EndReason = EndReason.STOPPED) -> Ended:
        """Have a session stopped, and wait until it has. Raises `StopNotConfirmed`, and `ServiceClosed` as `ask` does."""
        ref = listing.ref
        if ref is None:  # its supervisor ends it, without it
            with self._while_actors_run(), anyio.move_on_after(self._stop_seconds()):
                over = anyio.Event()
                self.resources().directory.when_over(listing, over.set)
                await over.wait()
            return await self._ended_without_it(listing.facts.session_id)
        upto, skipped = listing.door.finish()
        try:
            ended: Ended = await self.ask(ref, lambda token: Stop(reason, upto, token, skipped), self._stop_seconds())
        except AskTimeout:
            if self._closed:
                return Ended(listing.facts.session_id, durable=False, spilled=False)
            # The session failed so badly that it could not answer; its supervisor has ended it, or will.
            return await self._ended_without_it(listing.facts.session_id)
        return ended

    async def _ended_without_it(self, session_id: str) -> Ended:
        session = await self.resources().past.session(session_id)
        if session is None or session.state is not VoiceSessionState.STOPPED:
            raise StopNotConfirmed(session_id)
        return Ended(session_id, durable=True, spilled=False)

    async def ask(self, ref: Ref, make: Callable[[Token], object], seconds: float) -> Any:
        """The answer of an actor. Raises `AskTimeout`, and `ServiceClosed` as soon as the actors have ended."""
        if not self._actors_ended:
            with self._while_actors_run():
                return await self.system.ask(ref, make, seconds)
        raise ServiceClosed if self._failure is None else self._failed(self._failure)

    @contextmanager
    def _while_actors_run(self) -> Iterator[None]:
        """The block is left as soon as the actors have ended."""
        with anyio.CancelScope() as scope:
            self._waits.add(scope)
            try:
                yield
            finally:
                self._waits.discard(scope)

    @staticmethod
    def _failed(problem: str) -> ServiceClosed:
        return ServiceClosed(f"the voice service failed, and its sessions were ended ({problem}); create a new one")

    def _stop_seconds(self) -> float:
        """The longest that a session takes to end: drain, final evidence, spill."""
        settings = self._settings
        return settings.stop_timeout_seconds + 2 * settings.evidence_timeout_seconds + CLOSING_GRACE_SECONDS

    def abandon(self, session_id: str) -> None:
        """Nobody will learn the id of this session: it is stopped as soon as it is there."""
        if self._resources is None:
            return
        self._resources.store_port.unrecordable(session_id)
        ref = self._resources.directory.abandon(session_id)
        if ref is not None:
            self.system.tell(ref, Stop(EndReason.STOPPED, 0))
        else:
            self.no_longer_awaited(session_id)

    def no_longer_awaited(self, session_id: str) -> None:
        """Nobody waits for the answer about this session: if its request was set aside, it leaves the directory."""
        self.system.tell(self.supervisor, Unawaited(session_id))


def _tell_of_slow(step: SlowStep) -> None:
    log.warning("slow_step", actor=step.actor, handled=step.message, seconds=round(step.seconds, 3))
