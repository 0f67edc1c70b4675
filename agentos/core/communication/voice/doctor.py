"""What could keep the voice backend from working here: each check says what it found and what to do.

Nothing of the project is imported before its check, so that a broken installation is a finding and not a crash.
"""

import contextlib
import errno
import importlib
import importlib.util
import os
import secrets
import shlex
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from agentos.core.communication.voice.errors import UnusableExtension

DISTRIBUTION: Final = "agentos-voice"
OWN_PACKAGES: Final = ("actors", "machines")
NAMESPACES: Final = ("agentos", "agentos/core", "agentos/core/communication")
PYTHONS: Final = ((3, 11), (3, 13))  # the oldest and the newest that is tested
FEW_CALLS: Final = 1_000  # that the limit on open files allows
SHOWN_NAMES: Final = 3
LOW_SPACE_BYTES: Final = 500 * 1024 * 1024  # four hours of FLAC at 16 kHz
ROOT: Final = Path(__file__).resolve().parents[4]  # the folder that holds `agentos`, `actors` and `machines`


class Level(str, Enum):
    """How bad a finding is: in order, not ideal, or it will not work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Check(NamedTuple):
    """One finding: what was looked at, what was found, and what to do about it (empty when nothing)."""

    name: str
    level: Level
    found: str
    advice: str = ""


def examine(home: Path | None = None) -> list[Check]:
    """Look at everything; takes a second or two, and leaves nothing behind.

    `home` goes before the setting. Never raises: a check that can't be made is a failed one.
    """
    checks: list[tuple[str, Callable[[], Iterator[Check]]]] = [
        ("python", _python),
        ("event loops", _loops),
        ("open files", _open_files),
        ("names", lambda: _clashes([*sys.path, str(Path.cwd())])),
        ("settings", _settings),
        ("home", lambda: _home(home)),
        ("access", lambda: _access(home)),
        ("database", lambda: _database(home)),
        ("recordings", lambda: _recordings(home)),
        ("heads", lambda: _heads(home)),
        ("providers", lambda: _ways_in(home)),
        ("speech to text", lambda: _engines(home)),
        ("sample", _sample),
    ]
    return [found for name, check in checks for found in _made(name, check)]


def _made(name: str, check: Callable[[], Iterator[Check]]) -> list[Check]:
    found: list[Check] = []
    try:
        found.extend(check())
    except Exception as error:  # noqa: BLE001 - whatever keeps a check from being made is what the doctor is to tell
        text = " ".join(str(error).split())
        advice = (
            "install it again: pip install --force-reinstall agentos-voice" if isinstance(error, ImportError) else ""
        )
        found.append(Check(name, Level.FAIL, f"{type(error).__name__}: {text}", advice))
    return found


def _python() -> Iterator[Check]:
    version = sys.version_info[:2]
    text = f"{sys.version.split()[0]} at {sys.executable}"
    if version < PYTHONS[0]:
        yield Check("python", Level.FAIL, text, f"take Python {_dotted(PYTHONS[0])} to {_dotted(PYTHONS[1])}")
    elif version > PYTHONS[1]:
        yield Check("python", Level.WARN, text, f"tested up to {_dotted(PYTHONS[1])}")
    else:
        yield Check("python", Level.OK, text)


def _loops() -> Iterator[Check]:
    uvloop = importlib.util.find_spec("uvloop")
    fast = f"uvloop {metadata.version('uvloop')}" if uvloop is not None else "uvloop not installed (not needed)"
    yield Check(
        "event loops", Level.OK, f"asyncio, {fast}, trio {metadata.version('trio')}, anyio {metadata.version('anyio')}"
    )


def _open_files() -> Iterator[Check]:
    from agentos.core.communication.voice.open_files import (  # noqa: PLC0415 - as above
        calls_for,
        most_open_files,
        open_files_limit,
    )

    soft, most = open_files_limit(), most_open_files()
    text = f"{soft:,}, which a server raises to {most:,}: enough for {calls_for(most):,} recorded calls with streams"
    if calls_for(most) < FEW_CALLS:
        advice = "raise the hard limit: `LimitNOFILE=` of a systemd unit, `--ulimit nofile=` of a container"
        yield Check("open files", Level.WARN, text, advice)
    else:
        yield Check("open files", Level.OK, text)


def _clashes(paths: Sequence[str]) -> Iterator[Check]:
    """Other distributions, folders or files that provide `actors` or `machines`, and regular packages that would hide
    namespaces."""
    owners = metadata.packages_distributions()
    for name in OWN_PACKAGES:
        others = sorted({owner for owner in owners.get(name, ()) if _canonical(owner) != DISTRIBUTION})
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve() if spec is not None and spec.origin is not None else None
        elsewhere = sorted({str(found) for path in paths for found in _providers(Path(path or "."), name)})
        if origin != ROOT / name / "__init__.py":
            where = "nowhere" if origin is None else str(origin)
            yield Check(
                f"import {name}",
                Level.FAIL,
                f"comes from {where}, not from {ROOT / name}",
                f"rename that package, or keep it and {DISTRIBUTION} in separate environments",
            )
        elif others:
            yield Check(
                f"import {name}",
                Level.FAIL,
                f"is provided by {', '.join(others)} too",
                f"keep it and {DISTRIBUTION} in separate environments: they overwrite each other's files",
            )
        elif elsewhere:
            yield Check(
                f"import {name}",
                Level.WARN,
                f"is ours, but {', '.join(elsewhere)} has the same name",
                "it takes over in a program that has that folder first in its path; rename it",
            )
        else:
            yield Check(f"import {name}", Level.OK, f"is ours, {ROOT / name}")
    hiding = sorted({str(found) for path in paths for found in _hiding(Path(path or "."))})
    if hiding:
        yield Check(
            "import agentos",
            Level.FAIL,
            f"{', '.join(hiding)} makes a regular package that hides agentos.core.communication.voice",
            "delete that __init__.py: agentos, agentos.core and agentos.core.communication must be namespace packages",
        )
    else:
        yield Check("import agentos", Level.OK, "is a namespace, open for a host's own packages")


def _providers(folder: Path, name: str) -> Iterator[Path]:
    for candidate in (folder / name / "__init__.py", folder / f"{name}.py"):
        if candidate.is_file() and candidate.resolve() != ROOT / name / "__init__.py":
            yield candidate.resolve()


def _hiding(folder: Path) -> Iterator[Path]:
    """`__init__.py` files on the way to the voice package; harmless only where that package lies behind them.

    First or last in the path, a regular package goes before a namespace. When such a folder is in the path of this very
    process, nobody gets as far as this check: so one stands in the host's folder to ask.
    """
    for namespace in NAMESPACES:
        candidate = folder / namespace / "__init__.py"
        if candidate.is_file() and folder.resolve() != ROOT:
            yield candidate.resolve()


def _home(home: Path | None) -> Iterator[Check]:
    from agentos.core.communication.voice.settings import load_settings  # noqa: PLC0415 - may be what is broken

    folder = (load_settings() if home is None else load_settings(home=home)).home
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    note = "" if existing == folder else " (made by the first call)"
    try:
        _try_to_write(folder)
    except OSError as error:
        problem = f"{folder} can't be written: {error.strerror or error}"
        yield Check("home", Level.FAIL, problem, "set AGENTOS_VOICE_HOME to a folder that you may write to")
        return
    free = shutil.disk_usage(existing).free
    text = f"{folder}{note}, {free / 1024**3:.1f} GiB free"
    if free < LOW_SPACE_BYTES:
        yield Check("home", Level.WARN, text, "make room: recordings take about 60 MB an hour")
    else:
        yield Check("home", Level.OK, text)


def _access(home: Path | None) -> Iterator[Check]:
    """Whether others on this machine may change what is in the home, or read what callers said."""
    from agentos.core.communication.voice.settings import load_settings  # noqa: PLC0415 - as above

    settings = load_settings() if home is None else load_settings(home=home)
    folder = settings.home
    problems = []
    mode = _mode(folder)
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        who = "everybody" if mode & stat.S_IWOTH else "its group"
        text = f"{folder} can be written by {who} (mode {mode:04o}), so that they can exchange database and recordings"
        problems.append((text, f"chmod go-w {shlex.quote(str(folder))}"))
    private = (settings.recordings, *sorted(folder.glob(f"{settings.database.name}*")), *sorted(folder.glob("*.spill")))
    for place in private:
        mode = _mode(place)
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            text = f"{place} holds what callers said, and is not for its owner only (mode {mode:04o})"
            problems.append((text, f"chmod -R go= {shlex.quote(str(place))}"))
    for text, command in problems:
        yield Check("access", Level.WARN, text, command)
    if not problems:
        yield Check("access", Level.OK, "nobody but its owner can read or change what is in the home")


def _mode(path: Path) -> int:
    """The permissions of a file or folder; 0 when it is not there."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return 0


def _try_to_write(folder: Path) -> None:
    """Make a file in `folder`, sync it and remove it. Missing folders are made, and removed again. Raises `OSError`."""
    from agentos.core.communication.voice.storage.folders import ensure_private_folder  # noqa: PLC0415 - as above

    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        ensure_private_folder(folder)
        trial = folder / f".doctor-{secrets.token_hex(8)}"
        descriptor = os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if os.write(descriptor, b"trial") < len(b"trial"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            trial.unlink()
    finally:
        for place in missing:
            with contextlib.suppress(OSError):  # another process has put something there meanwhile
                place.rmdir()


def _settings() -> Iterator[Check]:
    from agentos.core.communication.voice.settings import load_settings, unknown_variables  # noqa: PLC0415 - as below

    load_settings()
    unknown = unknown_variables()
    for name, nearest in unknown.items():
        advice = f"did you mean {nearest}?" if nearest else "see `agentos-voice settings` for those that there are"
        yield Check("settings", Level.WARN, f"{name} is set, and there is no such setting", advice)
    if not unknown:
        yield Check("settings", Level.OK, "every variable that is set is a setting")


def _database(home: Path | None) -> Iterator[Check]:
    from agentos.core.communication.voice.errors import StoreError  # noqa: PLC0415
    from agentos.core.communication.voice.settings import load_settings  # noqa: PLC0415
    from agentos.core.communication.voice.storage.opening import (  # noqa: PLC0415
        NEWEST_REVISION,
        open_to_read,
        revision_of,
    )

    path = (load_settings() if home is None else load_settings(home=home)).database
    if not path.exists():
        yield Check("database", Level.OK, f"none yet, the first call makes {path}; schema {NEWEST_REVISION}")
        return
    try:
        with open_to_read(path) as store:
            counts = store.statistics()
            revision = revision_of(path)
            dead, living = len(store.sessions_of_the_dead()), len(store.sessions_of_the_living())
    except StoreError as error:
        yield Check("database", Level.FAIL, str(error), "keep the file for an examination, and restore a copy")
        return
    text = f"{path}: schema {revision}, {counts.sessions} sessions, {counts.records} evidence records"
    if revision != NEWEST_REVISION:
        yield Check("database", Level.WARN, text, f"the next call migrates it to schema {NEWEST_REVISION}; keep a copy")
    else:
        yield Check("database", Level.OK, text)
    if dead:
        advice = "end them with `agentos-voice recover`; a service that runs on this home does so by itself"
        yield Check("sessions", Level.WARN, f"left by processes that died: {dead}, running: {living}", advice)
    else:
        yield Check("sessions", Level.OK, f"running: {living}, none was left by a process that died")


def _recordings(home: Path | None) -> Iterator[Check]:
    """Folders of samples that no session's result names, by whether the session is known, and damaged recordings."""
    from agentos.core.communication.voice.errors import StoreError  # noqa: PLC0415 - as above
    from agentos.core.communication.voice.recording.finishing import Finishing  # noqa: PLC0415
    from agentos.core.communication.voice.settings import load_settings  # noqa: PLC0415
    from agentos.core.communication.voice.storage.opening import open_to_read  # noqa: PLC0415

    settings = load_settings() if home is None else load_settings(home=home)
    if not settings.recordings.is_dir():
        yield Check("recordings", Level.OK, "none yet")
        return
    if not settings.database.is_file():
        left = sorted(path.name for path in settings.recordings.iterdir())
        advice = "put the database back that belongs to them"
        yield Check(
            "recordings", Level.WARN, f"no database names what is in {settings.recordings}: {_some(left)}", advice
        )
        return
    try:
        with open_to_read(settings.database) as store:
            unnamed = Finishing(store, settings.recordings, settings.recording_format).unnamed()
            unfinished, failed = store.unfinished_recordings(), store.failed_recordings()
    except StoreError:
        yield Check("recordings", Level.WARN, "the database that names them can't be read")
        return
    left = sorted(name for name, owner in unnamed.items() if owner is not None)
    unknown = sorted(name for name, owner in unnamed.items() if owner is None)
    if left:
        advice = "finish them with `agentos-voice recover`; a service that starts on this home does so by itself"
        yield Check("recordings", Level.WARN, f"samples that no result names: {_some(left)}", advice)
    if unknown:
        advice = "they belong to another database, or can be deleted"
        yield Check("recordings", Level.WARN, f"samples of unknown sessions: {_some(unknown)}", advice)
    if failed:
        advice = "what there is of them is in their folders; evidence says so (`recording_failed`)"
        yield Check("recordings", Level.WARN, f"damaged: {_some([name for name, _ in failed])}", advice)
    if not (left or unknown or failed):
        yield Check("recordings", Level.OK, f"all are named; still to be finished: {len(unfinished)}")


def _some(names: Sequence[str]) -> str:
    """How many, with the names of the first."""
    shown = ", ".join(names[:SHOWN_NAMES])
    return f"{len(names)} ({shown}{', …' if len(names) > SHOWN_NAMES else ''})"


def _heads(home: Path | None) -> Iterator[Check]:
    from agentos.core.communication.voice.errors import ChainNotContinued  # noqa: PLC0415 - as above
    from agentos.core.communication.voice.settings import load_settings  # noqa: PLC0415
    from agentos.core.communication.voice.storage.head_notes import HeadFile, check_heads, file_older  # noqa: PLC0415
    from agentos.core.communication.voice.storage.opening import open_to_read  # noqa: PLC0415

    settings = load_settings() if home is None else load_settings(home=home)
    path = settings.heads
    if path is None:
        yield Check(
            "heads",
            Level.OK,
            "none are noted (AGENTOS_VOICE_HEADS): a chain that was cut can't be told from a whole one",
        )
        return
    try:
        heads, _ = HeadFile(path).read()
        older = None
        if settings.database.is_file():
            with open_to_read(settings.database) as store:
                check_heads(store, path)
                older = file_older(store, path)
    except ChainNotContinued as error:
        yield Check("heads", Level.FAIL, str(error))
        return
    except OSError as error:
        yield Check(
            "heads", Level.FAIL, f"{path} can't be read: {error}", "set AGENTOS_VOICE_HEADS to a file that can be"
        )
        return
    place = path if path.exists() else path.parent
    text = f"{path}, {len(heads)} noted"
    if not os.access(place, os.W_OK):
        yield Check("heads", Level.FAIL, f"{place} can't be written", "set AGENTOS_VOICE_HEADS to a file that can be")
    elif older is not None:
        yield Check("heads", Level.FAIL, f"{path}: {older}", "put the file back that belongs to this database")
    elif _mode(path) & (stat.S_IWGRP | stat.S_IWOTH):
        yield Check("heads", Level.WARN, f"{text}; others can write it", f"chmod go-w {shlex.quote(str(path))}")
    elif path.is_relative_to(settings.home):
        advice = "put it where whoever can write the home can't write"
        yield Check("heads", Level.WARN, f"{text}; it stands in the home", advice)
    else:
        yield Check("heads", Level.OK, text)


def _ways_in(home: Path | None) -> Iterator[Check]:
    from agentos.core.communication.voice.errors import UnusableExtension  # noqa: PLC0415 - as below
    from agentos.core.communication.voice.providers.registry import Providers  # noqa: PLC0415
    from agentos.core.communication.voice.settings import load_settings  # noqa: PLC0415
    from machines.session import VoiceProvider  # noqa: PLC0415

    providers = Providers(load_settings() if home is None else load_settings(home=home))
    own = {member.value for member in VoiceProvider}
    ready, others = [], []
    for name in providers.names():
        try:
            valid, problem = providers.validate(name)
        except UnusableExtension as error:
            others.append(_unusable(f"provider {name}", error))
            continue
        if valid:
            ready.append(name)
        elif name in own:
            others.append(Check(f"provider {name}", Level.OK, f"{problem} (optional)"))
        else:
            others.append(Check(f"provider {name}", Level.WARN, str(problem), "set what it says is missing"))
    yield Check("providers", Level.OK, f"ready: {', '.join(ready)}")
    yield from others
    yield from _left_aside("provider", providers.taken())


def _engines(home: Path | None) -> Iterator[Check]:
    from agentos.core.communication.voice.errors import UnusableExtension  # noqa: PLC0415 - as above
    from agentos.core.communication.voice.running.request import EMBEDDED  # noqa: PLC0415
    from agentos.core.communication.voice.settings import load_settings  # noqa: PLC0415
    from agentos.core.communication.voice.stt.registry import Engines, EngineUnavailable  # noqa: PLC0415

    engines = Engines(load_settings() if home is None else load_settings(home=home))
    ready, others = [], []
    for name in engines.names():
        reason = engines.missing(name)
        if reason is None:
            ready.append(name)
        elif name != EMBEDDED.value:
            try:
                engines.engine(name)
                others.append(Check(f"engine {name}", Level.WARN, reason, "install or set what it says is missing"))
            except EngineUnavailable:
                others.append(Check(f"engine {name}", Level.OK, f"{reason} (optional)"))
            except UnusableExtension as error:
                others.append(_unusable(f"engine {name}", error))
    if EMBEDDED.value in ready:
        yield Check("speech to text", Level.OK, f"ready: {', '.join(ready)}")
    else:
        reason = engines.missing(EMBEDDED) or ""
        yield Check("speech to text", Level.FAIL, reason, "install it again: pip install pocketsphinx")
    yield from others
    yield from _left_aside("engine", engines.taken())


def _unusable(name: str, error: "UnusableExtension") -> Check:
    return Check(name, Level.WARN, str(error), f"repair or uninstall {error.distribution}")


def _left_aside(kind: str, taken: Mapping[str, str]) -> Iterator[Check]:
    for name, distribution in taken.items():
        found = f"{distribution} offers one, which is left aside: the name is this package's own"
        yield Check(f"{kind} {name}", Level.WARN, found, f"uninstall {distribution}, or have its name changed")


def _sample() -> Iterator[Check]:
    from agentos.core.communication.voice.audio.files import AudioFileError, SoundFile  # noqa: PLC0415 - as above
    from agentos.core.communication.voice.samples import SAMPLE, SAMPLE_TEXT  # noqa: PLC0415
    from agentos.core.communication.voice.stt.base import FinalText, make_engine  # noqa: PLC0415
    from agentos.core.communication.voice.stt.registry import OWN  # noqa: PLC0415
    from machines.audio import FRAMES_PER_SECOND, AudioFormat  # noqa: PLC0415

    try:
        blocks = list(SoundFile(SAMPLE, AudioFormat()).blocks(FRAMES_PER_SECOND))
    except AudioFileError as error:
        yield Check("sample", Level.FAIL, str(error), "install agentos-voice again")
        return
    (embedded,) = OWN
    engine = make_engine(embedded.factory, embedded.configuration, {})
    engine.start("doctor")
    results = [result for block in blocks for result in engine.feed(block)] + engine.finish()
    heard = " ".join(result.text for result in results if isinstance(result, FinalText))
    level = Level.OK if heard == SAMPLE_TEXT else Level.FAIL
    advice = "" if level is Level.OK else f"it says {SAMPLE_TEXT!r}; install pocketsphinx again"
    yield Check("sample", level, f"heard as {heard!r}", advice)


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
