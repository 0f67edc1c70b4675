"""A blocking service that is interrupted while it starts, by Ctrl-C, or by a handler that closes it at every line."""

import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from agentos.core.communication.voice import VoiceService
from agentos.core.communication.voice.errors import ServiceClosed, StoreError
from agentos.core.communication.voice.settings import VoiceSettings

MakeSettings = Callable[..., VoiceSettings]
PATIENCE = 60
WAY = {"_call", "_start", "_running", "wait", "__init__"}  # from the first use to the service's thread


class Cut:
    """Does something at the line with this number on the way into the service, once."""

    def __init__(self, number: int, act: Callable[[], None]) -> None:
        self._left = number
        self._act = act
        self.reached = False

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_name not in WAY or not frame.f_code.co_filename.endswith("voice/service.py"):
            return None
        if event == "line":
            self._left -= 1
            if not self._left:
                self.reached = True
                sys.settrace(None)
                self._act()
        return self


def interrupted(service: VoiceService, cut: Cut) -> list[BaseException | None]:
    """Use a service for the first time, with the cut on the way, in a thread of its own; fails when that hangs."""
    came: list[BaseException | None] = []

    def use() -> None:
        sys.settrace(cut)
        try:
            service.list_sessions()
            came.append(None)
        except BaseException as error:  # noqa: BLE001 - what comes is looked at
            came.append(error)
        finally:
            sys.settrace(None)

    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "it hangs"
    return came


def closed(service: VoiceService) -> None:
    """Close it, from another thread, twice; fails when that hangs."""
    thread = threading.Thread(target=lambda: (service.close(), service.close()), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "it hangs"
    assert not any(one.name == "voice-service" for one in threading.enumerate())


@pytest.mark.parametrize("how", ["a handler closes it", "a handler closes it twice"])
def test_at_every_line_of_its_start(how: str, make_settings: MakeSettings) -> None:
    at, reached = 0, True
    while reached:
        at += 1
        service = VoiceService(make_settings(control_socket="off"))

        def act(service: VoiceService = service) -> None:
            service.close()
            if how.endswith("twice"):
                service.close()

        cut = Cut(at, act)
        [came] = interrupted(service, cut)
        reached = cut.reached
        if not reached:
            assert came is None
        else:
            assert isinstance(came, ServiceClosed)
        closed(service)
        with pytest.raises(ServiceClosed):
            service.list_sessions()
    assert at > 20  # lines


def test_others_end_it_while_it_starts(make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    service = VoiceService(make_settings())
    begun, go_on = threading.Event(), threading.Event()
    real = service._main

    async def slow(*arguments: Any) -> None:
        begun.set()
        go_on.wait(PATIENCE)
        await real(*arguments)

    monkeypatch.setattr(service, "_main", slow)

    def use() -> None:
        with pytest.raises(ServiceClosed):
            service.list_sessions()

    user = threading.Thread(target=use, daemon=True)
    user.start()
    assert begun.wait(PATIENCE)
    closing = threading.Thread(target=service.close, daemon=True)
    closing.start()
    while not service._closed:
        pass
    go_on.set()
    for thread in (user, closing):
        thread.join(PATIENCE)
        assert not thread.is_alive(), "it hangs"


def test_a_start_that_failed_is_tried_again(make_settings: MakeSettings) -> None:
    settings = make_settings()
    settings.home.mkdir(parents=True)
    settings.database.write_bytes(b"no database at all, " * 100)
    with VoiceService(settings) as service:
        for _ in range(2):
            with pytest.raises(StoreError):
                service.list_sessions()
        settings.database.unlink()
        assert service.list_sessions() == []


def test_after_ctrl_c_in_its_start_it_can_be_closed(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(started: object) -> None:
        raise KeyboardInterrupt

    service = VoiceService(make_settings())
    with monkeypatch.context() as patched:
        patched.setattr("agentos.core.communication.voice.service._Started.wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            service.list_sessions()
    closed(service)
