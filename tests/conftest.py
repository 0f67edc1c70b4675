"""What every test has: a home of its own, the three loops for `anyio` tests, in CI no way to be skipped, and the duty to
leave nothing behind."""

import asyncio
import compileall
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import uvloop

from agentos.core.communication.voice.logs import LOGGER
from tests.loops import ASYNCIO, TRIO, UVLOOP, loops

pytest_plugins = ["tests.hanging"]

IN_CI = bool(os.environ.get("CI"))
LONGEST = "test_in_the_browser.py"
SLOW_SECONDS = 600

hypothesis.settings.register_profile("project", deadline=None, print_blob=True, derandomize=IN_CI)
hypothesis.settings.load_profile("project")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """All cores for a whole run, and one worker more, since tests wait as much as they work; one file, or one test of it,
    runs in this process."""
    if any(".py" in argument for argument in config.args):
        return 0
    return len(os.sched_getaffinity(0)) + 1


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):  # a worker ignores it, and so would every process that a test starts
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return
    # Hundreds of processes are started; where Python may write no bytecode, each would compile all of the sources again.
    for floor in ("machines", "actors", "agentos"):
        compileall.compile_dir(config.rootpath / floor, quiet=2)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes longest comes first: another worker has the rest meanwhile. What is slow has time on a busy machine, too."""
    _take_a_sample(config, items)
    items.sort(key=lambda item: item.path.name != LONGEST)
    for item in items:
        lasting = item.get_closest_marker("slow") is not None or _is_alone(item)
        if lasting and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))


def _take_a_sample(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of the cases of each search leave each N-th, beginning with the first; searches of one case count together by file, and
    what is slow counts by itself."""
    met: Counter[tuple[str, bool]] = Counter()
    left_out = []
    for item in items:
        if item.get_closest_marker("search") is not None:
            name = item.nodeid.partition("[")[0] if "[" in item.nodeid else str(item.path)
            test = name, item.get_closest_marker("slow") is not None
            if met[test] % config.getoption("sample"):
                left_out.append(item)
            met[test] += 1
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


def pytest_collection_finish() -> None:
    """What the tests are made of stays until the end: the garbage collector need not look at it again and again."""
    gc.collect()
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--sample", type=int, default=1, help="take each so-manieth case of what is marked `search` (1: all)"
    )
    parser.addoption("--kills", type=int, default=40, help="how often the torture kills a process (40)")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A test that is marked `alone` runs in a process that has no thread but its own, together with all such tests of its
    file; a worker has one more thread."""
    if not hasattr(pyfuncitem.config, "workerinput") or not _is_alone(pyfuncitem):
        return None
    if pyfuncitem.path not in _run_alone:
        together = [item for item in pyfuncitem.session.items if item.path == pyfuncitem.path and _is_alone(item)]
        command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-rA", "-m", ""]
        done = subprocess.run(
            [*command, *[item.nodeid for item in together]],
            cwd=pyfuncitem.config.rootpath,
            capture_output=True,
            text=True,
            check=False,
        )
        _run_alone[pyfuncitem.path] = done.stdout + done.stderr
    told = _run_alone[pyfuncitem.path]
    assert f"PASSED {pyfuncitem.nodeid}\n" in told, told
    return True


_run_alone: dict[Path, str] = {}  # by file: the output of the process that ran these tests


def _is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


anyio_backend = loops(ASYNCIO, UVLOOP, TRIO)  # everything must run on


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, the only setting in the environment; processes that a test starts inherit it."""
    for name in list(os.environ):
        if name.upper().startswith(("AGENTOS_VOICE_", "TWILIO_")):
            monkeypatch.delenv(name)
    folder = tmp_path / "home"
    monkeypatch.setenv("AGENTOS_VOICE_HOME", str(folder))
    return folder


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    """A command or a service that a test runs in this process says how the process logs."""
    library = logging.getLogger(LOGGER)
    yield
    library.setLevel(logging.NOTSET)
    library.propagate = True
    library.handlers.clear()


GRACE_SECONDS = 5.0  # what a test ended may take so long to be gone: a thread its last lines, the kernel a dead process


def _in_use() -> set[str]:
    """Open files, sockets among them, child processes, threads (a timer is one) and tasks of any loop.

    Not counted: the helper process that `multiprocessing` keeps, with its pipe, and idle threads that trio keeps for later.
    """
    found = set()
    tracker = resource_tracker._resource_tracker  # type: ignore[attr-defined]
    for descriptor in os.listdir("/proc/self/fd"):  # noqa: PTH208 - a tenth of what pathlib takes
        if descriptor != str(tracker._fd):
            try:
                found.add(f"file {descriptor}, {os.readlink(f'/proc/self/fd/{descriptor}')}")  # noqa: PTH115
            except OSError:
                continue  # the listing's own
    for thread in threading.enumerate():
        if not thread.name.startswith("Trio thread"):
            found.add(f"thread {thread.name} {thread.ident}")
        try:
            with open(f"/proc/self/task/{thread.native_id}/children") as children:  # noqa: PTH123 - as above
                found.update(f"process {pid}" for pid in children.read().split() if pid != str(tracker._pid))
        except OSError:
            continue  # it has just ended
    tasks: Any = vars(asyncio.tasks)["_scheduled_tasks" if sys.version_info >= (3, 12) else "_all_tasks"]
    found.update(f"task {task!r}" for task in list(tasks) if not task.done())
    return found


@pytest.fixture(scope="session")
def libuv() -> None:
    """It opens a pipe of its own when the first of its loops is made, and keeps it."""
    uvloop.new_event_loop().close()


@pytest.fixture(autouse=True)
def nothing_is_left(libuv: None) -> Iterator[None]:
    """After each test everything that it opened or started is gone."""
    before = _in_use()
    yield
    if not (left := _in_use() - before):
        return
    deadline = time.monotonic() + GRACE_SECONDS  # noqa: TID251 - not under a test's virtual clock
    while left and time.monotonic() < deadline:  # noqa: TID251
        time.sleep(0.002)
        gc.collect()  # what a caught error's traceback held open
        left = _in_use() - before
    assert left == set(), "the test left something behind"


@pytest.fixture
def new_file_system(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a real file system of so many bytes, to be filled."""
    mounted: list[Path] = []

    def mount(n_bytes: int) -> Path:
        folder = tmp_path / "small"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "small", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a tmpfs can't be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _no_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if IN_CI and report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"nothing may be skipped when CI is set: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _no_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _no_skip(report)
    return report
