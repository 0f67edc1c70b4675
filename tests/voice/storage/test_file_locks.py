"""A lock that dies with its process says whose sessions are whose."""

import errno
import fcntl
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agentos.core.communication.voice.errors import LocksUnavailable, StoreError
from agentos.core.communication.voice.storage import file_locks
from agentos.core.communication.voice.storage.file_locks import FileLocks

PATIENCE = 30
HOLDING = """
import os, sys
from pathlib import Path
from agentos.core.communication.voice.storage.file_locks import FileLocks

mine = FileLocks(Path(sys.argv[1])).take("other")
child = len(sys.argv) > 2 and not os.fork()
if child or len(sys.argv) == 2:
    print("ready", flush=True)  # the child that outlives its parent is there, and has let go of what it must not keep
sys.stdin.read()
if child:
    os._exit(0)
"""


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_an_owner_lives_as_long_as_its_process_and_no_longer(tmp_path: Path) -> None:
    home = tmp_path / "home"
    command = [sys.executable, "-c", HOLDING, str(home)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert FileLocks(home).names() == ["other"]
        assert not FileLocks(home).is_dead("other")
        assert FileLocks(home).take_over("other") is None
        process.kill()
        process.wait(PATIENCE)
    assert FileLocks(home).is_dead("other")
    taken = FileLocks(home).take_over("other")
    assert taken is not None
    assert taken.owner == "other"
    assert not FileLocks(home).is_dead("other")  # somebody has taken its place
    assert FileLocks(home).take_over("other") is None
    taken.release()
    taken.release()
    assert names(home) == []
    assert FileLocks(home).is_dead("other")


def test_a_forked_child_does_not_keep_its_dead_parent_alive(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    command = [sys.executable, "-c", HOLDING, str(tmp_path), "fork"]
    with subprocess.Popen(command, stdin=reading, stdout=subprocess.PIPE, text=True) as process:
        os.close(reading)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert not FileLocks(tmp_path).is_dead("other")
        process.kill()
        process.wait(PATIENCE)
        assert FileLocks(tmp_path).is_dead("other")
        os.close(writing)  # and so the child ends


def test_an_owner_without_a_file_is_dead_and_only_one_takes_its_place(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for _ in range(50):
            taken = [found for found in pool.map(lambda _: FileLocks(tmp_path).take_over("other"), range(8)) if found]
            assert len(taken) == 1
            taken[0].release()
    assert names(tmp_path) == []


def test_never_two_at_a_time_hold_one_lock(tmp_path: Path) -> None:
    inside: list[int] = []

    def take_and_release(number: int) -> int:
        held = FileLocks(tmp_path).take_over("other")
        if held is None:
            return 0
        inside.append(number)
        assert inside == [number]
        inside.remove(number)
        held.release()
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take_and_release, range(2000))) > 1


@pytest.mark.parametrize("owner", ["", "../evil", ".hidden", "x" * 129])
def test_what_no_service_is_named_is_nobody(tmp_path: Path, owner: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    assert FileLocks(home).is_dead(owner)
    taken = FileLocks(home).take_over(owner)
    assert taken is not None
    assert names(home) == ["nobody.owner"]
    assert names(tmp_path) == ["home"]
    taken.release()


def test_a_new_owner_waits_while_others_only_look(tmp_path: Path) -> None:
    looking = FileLocks(tmp_path).take("me")
    with ThreadPoolExecutor(1) as pool:
        taking = pool.submit(FileLocks(tmp_path).take, "me")
        looking.release()
        taken = taking.result(PATIENCE)
    assert not FileLocks(tmp_path).is_dead("me")
    taken.release()


def test_a_name_that_another_process_has_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_locks, "TAKE_SECONDS", 0.05)
    mine = FileLocks(tmp_path).take("me")
    with pytest.raises(StoreError, match="locked by another process") as caught:
        FileLocks(tmp_path).take("me")
    assert caught.value.kind == "locked"
    mine.release()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refused(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    (tmp_path / "other.owner").touch()
    monkeypatch.setattr(fcntl, "flock", refused)
    locks = FileLocks(tmp_path)
    for attempt in (locks.take, locks.take_over, locks.is_dead):
        with pytest.raises(LocksUnavailable, match="has no file locks") as caught:
            attempt("other")
        assert caught.value.folder == tmp_path


def test_any_other_failure_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "other.owner").mkdir()
    locks = FileLocks(tmp_path)
    for attempt in (locks.take, locks.take_over):
        with pytest.raises(StoreError):
            attempt("other")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file"):
        FileLocks(tmp_path / "file" / "home").take("other")
