"""Metrics for Prometheus: the service's own figures, read at each scrape.

The metrics count nothing themselves: a scrape reads `service.statistics()` and `service.inspect(0)`. Both look at every
session, which takes the loop some ten milliseconds with a thousand sessions; so the figures are cached for a second, however
many scrapes come. Names follow Prometheus: base units, `_total` for counters.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from agentos.core.communication.voice.async_service import AsyncVoiceService, ServiceStatistics
from agentos.core.communication.voice.measuring.durations import DurationStatistics
from agentos.core.communication.voice.running.inspection import ServicePicture
from agentos.core.time import monotonic_ms

MEDIA_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
FRESH_MS: Final = 1000
PREFIX: Final = "agentos_voice_"


class Metrics:
    """The metrics of one service, in a registry of their own. For one event loop."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._figures = _Figures()
        self._registry.register(self._figures)
        self._text = b""
        self._read_at_ms: int | None = None

    def text(self, service: AsyncVoiceService) -> bytes:
        """All metrics in the text format, at most `FRESH_MS` old. Raises `ServiceClosed`."""
        now = monotonic_ms()
        if self._read_at_ms is None or now - self._read_at_ms >= FRESH_MS:
            self._figures.read = service.statistics(), service.inspect(0)
            self._text = generate_latest(self._registry)
            self._read_at_ms = now
        return self._text


class _Figures:
    """Makes metrics of the figures that were read last."""

    def __init__(self) -> None:
        self.read: tuple[ServiceStatistics, ServicePicture] | None = None

    def collect(self) -> Iterator[Metric]:
        if self.read is not None:
            statistics, picture = self.read
            yield from _sessions(statistics)
            yield from _frames(statistics)
            yield from _actors(statistics, picture)
            yield from _ports(statistics, picture)


def _sessions(statistics: ServiceStatistics) -> Iterator[Metric]:
    calls = statistics.calls
    running = GaugeMetricFamily(PREFIX + "sessions", "Sessions that run.", labels=["state", "provider"])
    for one in calls.running:
        running.add_metric([one.state, one.provider], one.sessions)
    yield running
    yield _counter("sessions_started", "Sessions that began.", calls.started)
    yield _by("sessions_ended", "Sessions that ended, by the reason for their end.", "reason", calls.ended)
    yield _histogram(
        "session_drain_seconds",
        "From the news that a session is stopping to the news that it has stopped.",
        calls.drains,
    )


def _frames(statistics: ServiceStatistics) -> Iterator[Metric]:
    calls, media, speech = statistics.calls, statistics.media, statistics.speech
    yield _counter("frames_processed", "Frames of 20 ms that were digested, measured and recorded.", media.frames)
    yield _counter(
        "frames_given_up", "Frames given up for newer ones, of calls that can't be slowed.", media.given_up_frames
    )
    yield _counter("frames_accepted", "Frames of sessions that have ended.", calls.accepted_frames)
    yield _by(
        "frames_dropped", "Dropped frames of sessions that have ended, by reason.", "reason", calls.dropped_frames
    )
    yield _by(
        "frames_untranscribed",
        "Untranscribed frames of sessions that have ended, by reason.",
        "reason",
        calls.untranscribed_frames,
    )
    yield _counter("frames_heard", "Frames that were transcribed, or are no speech.", speech.heard_frames)
    yield _by("frames_unheard", "Frames that speech to text lost, by reason.", "reason", dict(speech.unheard_frames))
    waiting = GaugeMetricFamily(PREFIX + "frames_waiting", "Frames that wait inside.", labels=["port"])
    waiting.add_metric(["media"], media.queued_frames)
    waiting.add_metric(["speech"], speech.queued_frames + speech.frames_under_way)
    yield waiting


def _actors(statistics: ServiceStatistics, picture: ServicePicture) -> Iterator[Metric]:
    actors, load, lag = statistics.actors, statistics.load, picture.loop_lag
    yield _gauge(
        "accepting_calls", "1 while new calls are taken, 0 once the service drains.", 0 if picture.closing else 1
    )
    yield _gauge(
        "mailbox_age_seconds", "How long the oldest work has waited, for a second at least.", load.mailbox_age_seconds
    )
    late = GaugeMetricFamily(
        PREFIX + "loop_lag_seconds", "How late the event loop was in the last ten seconds.", labels=["quantile"]
    )
    for quantile, milliseconds in (("0.5", lag.p50_ms), ("0.99", lag.p99_ms), ("1", lag.max_ms)):
        late.add_metric([quantile], milliseconds / 1000)
    yield late
    yield _gauge("actors", "Actors that live.", actors.actors)
    yield _gauge("actors_held", "Actors that crashed and wait for their supervisor.", actors.held)
    yield _gauge("actors_ready", "Actors with mail.", actors.ready)
    yield _gauge("timers", "Armed timers.", actors.timers)
    yield _counter("actor_steps", "Steps of actors.", actors.steps)
    yield _counter("actor_crashes", "Crashes of actors.", actors.crashes)
    yield _counter("actor_restarts", "Restarts of actors.", actors.restarts)
    yield _counter("slow_steps", "Steps of actors that ran longer than they may.", actors.slow_steps)
    yield _counter("mailbox_overflows", "Audio messages dropped at a bound.", actors.overflowed)
    yield _by("dead_letters", "Messages that reached nobody, by reason.", "reason", actors.dead_letters)


def _ports(statistics: ServiceStatistics, picture: ServicePicture) -> Iterator[Metric]:
    speech, store, ports = statistics.speech, statistics.store, picture.ports
    ages = GaugeMetricFamily(
        PREFIX + "port_waiting_seconds", "How long the oldest work of a port waits.", labels=["port"]
    )
    for port, seconds in (
        ("media", ports.media_waiting_seconds),
        ("speech", ports.speech_waiting_seconds),
        ("store", ports.store_waiting_seconds),
    ):
        ages.add_metric([port], seconds)
    yield ages
    silent = GaugeMetricFamily(PREFIX + "port_silent", "1 for a port that does not answer.", labels=["port"])
    for port in ("media", "speech"):
        silent.add_metric([port], int(port in ports.silent))
    yield silent
    yield _counter("media_errors", "Writes that the disk refused.", statistics.media.errors)
    yield _gauge(
        "stt_wait_seconds",
        "How long the workers will take for the audio that waits, at their pace.",
        speech.wait_seconds,
    )
    yield _gauge("stt_workers", "Speech-to-text workers.", speech.workers)
    yield _counter("stt_utterances", "Finished utterances.", speech.utterances)
    lost = {"died": speech.workers_died, "hung": speech.workers_hung}
    yield _by("stt_workers_lost", "Speech-to-text workers that were lost, by how.", "how", lost)
    yield _histogram(
        "stt_latency_seconds",
        "From the hand-over of audio until a speech-to-text worker had decoded it.",
        speech.latencies,
    )
    yield _gauge("evidence_backlog", "Records and events that wait for the store.", store.backlog)
    yield _gauge("evidence_in_spill", "Records in the spill file.", store.waiting_in_spill)
    yield _counter("evidence_stored", "Records stored.", store.stored)
    yield _counter("evidence_failed", "Records that could not be stored when they came.", store.failed)
    yield _counter("events_lost", "Events that could not be stored.", store.events_lost)
    yield _histogram("evidence_lag_seconds", "From the hand-over of a record until it was durable.", store.lags)
    yield _gauge(
        "process_memory_bytes", "What the process has in memory, without its workers.", statistics.load.memory_bytes
    )


def _counter(name: str, help_text: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, help_text, value=value)


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, help_text, value=value)


def _by(name: str, help_text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, help_text, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family


def _histogram(name: str, help_text: str, durations: DurationStatistics) -> Metric:
    return HistogramMetricFamily(
        PREFIX + name, help_text, buckets=list(_buckets(durations)), sum_value=durations.sum_seconds
    )


def _buckets(durations: DurationStatistics) -> Iterable[tuple[str, float]]:
    for bound, count in zip(durations.bounds_seconds, durations.within, strict=True):
        yield str(bound), count
    yield "+Inf", durations.count
