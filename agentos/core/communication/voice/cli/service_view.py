"""The view of a running service on a terminal: its load, its waiting actors, and its problems."""

from collections.abc import Mapping
from typing import Final

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from actors.runtime.inspection import ActorPicture
from agentos.core.communication.voice.running.inspection import ServicePicture

DEAD_LETTERS_SHOWN: Final = 5
FIXED_LINES: Final = 12 + DEAD_LETTERS_SHOWN  # the lines of the view without the actors
OLD_SECONDS: Final = 1.0  # mail that waits longer is coloured
LATE_MS: Final = 100

_HEADINGS: Final = ("actor", "phase", "status", "mail", "oldest", "restarts", "timers")


def service_view(picture: ServicePicture) -> list[RenderableType]:
    """The picture as renderables: a summary, the actors in the order of the picture, the last dead letters."""
    return [_title(picture), _summary(picture), Text(), _actors(picture), Text(), *_dead_letters(picture)]


def _title(picture: ServicePicture) -> Text:
    text = Text(no_wrap=True)
    text.append(picture.instance, style="bold")
    up = int((picture.at - picture.started_at).total_seconds())
    text.append(f"  up {up // 3600}:{up // 60 % 60:02d}:{up % 60:02d}  ")
    text.append("closing" if picture.closing else "running", style="yellow" if picture.closing else "green")
    text.append(f"  {picture.at.isoformat(timespec='seconds')}", style="dim")
    return text


def _summary(picture: ServicePicture) -> Table:
    system, ports, lag = picture.system.statistics, picture.ports, picture.loop_lag
    media, speech, store = ports.media, ports.speech, ports.store
    held = Text(f"{system.actors}, ").append(f"{system.held} held", style="red" if system.held else "")
    rows = {
        "sessions": _counts(picture.sessions),
        "loop": Text(
            f"late by {lag.p50_ms} ms, p99 {lag.p99_ms} ms, at most {lag.max_ms} ms",
            style="red" if lag.p99_ms > LATE_MS else "",
        ),
        "actors": held.append(
            f", {system.ready} ready, {system.inbox} in the inbox, {system.timers} timers, {system.steps:,} steps, "
            f"{system.crashes} crashes, {system.restarts} restarts, {system.overflowed} overflowed, "
            f"{system.slow_steps} slow"
        ),
        "media": _port(
            media.queued_frames,
            ports.media_waiting_seconds,
            f"{media.frames:,} frames done, {media.given_up_frames:,} given up, {media.errors} errors",
            silent="media" in ports.silent,
        ),
        "speech": _port(
            speech.queued_frames,
            ports.speech_waiting_seconds,
            f"{speech.workers} workers, {speech.streams} streams, {speech.frames_under_way:,} frames with them, "
            f"{speech.heard_frames:,} heard, "
            f"{sum(count for _, count in speech.unheard_frames):,} unheard",
            silent="speech" in ports.silent,
        ),
        "store": _port(
            store.backlog,
            ports.store_waiting_seconds,
            f"{store.stored:,} stored, {store.failed} failed, {store.waiting_in_spill} in the spill file",
        ),
    }
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    for label, value in rows.items():
        grid.add_row(label, value)
    return grid


def _counts(counts: Mapping[str, int]) -> Text:
    return Text(", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none")


def _port(waiting: int, seconds: float, rest: str, *, silent: bool = False) -> Text:
    text = Text("does not answer; ", style="red") if silent else Text()
    text.append(f"{waiting:,} wait")
    if seconds:
        text.append(f", the oldest {seconds:.1f} s", style="red" if seconds > OLD_SECONDS else "")
    return text.append(f"; {rest}")


def _actors(picture: ServicePicture) -> Table:
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in _HEADINGS:
        made.add_column(heading, no_wrap=True, overflow="ellipsis")
    for actor in picture.system.actors:
        made.add_row(*_row(actor))
    if picture.system.left_out:
        made.add_row(Text(f"… and {picture.system.left_out} more", style="dim"))
    return made


def _row(actor: ActorPicture) -> tuple[Text, ...]:
    seconds = actor.waiting_seconds
    mail = actor.mail
    lanes = (("system", mail.system), ("control", mail.control), ("audio", mail.audio), ("deferred", mail.deferred))
    timers = sorted(actor.timers, key=lambda timer: timer.seconds_left)
    return (
        Text(actor.path.removeprefix("supervisor/")),
        Text(actor.phase),
        Text(actor.status, style="red" if actor.status == "held" else "dim" if actor.status == "idle" else ""),
        Text(", ".join(f"{count} {lane}" for lane, count in lanes if count) or "-"),
        Text("-" if seconds is None else f"{seconds:.1f} s", style="red" if (seconds or 0) > OLD_SECONDS else ""),
        Text(str(actor.incarnation), style="yellow" if actor.incarnation else ""),
        Text(", ".join(f"{timer.key} {timer.seconds_left:.0f} s" for timer in timers) or "-"),
    )


def _dead_letters(picture: ServicePicture) -> list[RenderableType]:
    counts = picture.system.statistics.dead_letters
    if not counts:
        return [Text("no dead letters", style="dim")]
    head = Text(f"{sum(counts.values())} dead letters: ", style="yellow").append(_counts(counts))
    last = picture.system.dead_letters[-DEAD_LETTERS_SHOWN:]
    return [
        head,
        *(
            Text(f"  {one.kind} to {one.to}: {one.reason}" + (f" ({one.error})" if one.error else ""), no_wrap=True)
            for one in reversed(last)
        ),
    ]
