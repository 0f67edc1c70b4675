"""The doctor: what is in order, what is not, and what to do about it."""

import errno
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from agentos.core.communication.voice import doctor, open_files
from agentos.core.communication.voice.cli import main
from agentos.core.communication.voice.doctor import Check, Level, examine
from agentos.core.communication.voice.samples import SAMPLE_TEXT
from agentos.core.communication.voice.storage.opening import open_store
from agentos.core.communication.voice.storage.sqlite.schema import HEAD
from agentos.core.communication.voice.stt import pocketsphinx, registry
from machines.names import text_of
from tests.voice.recording.test_finishing import ended, finishing
from tests.voice.recovery.test_recovery import Home, session, sound

ROOT = Path(__file__).parents[2]


def found(checks: list[Check], name: str) -> Check:
    (check,) = (check for check in checks if check.name == name)
    return check


def package(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "__init__.py").touch()
    return folder


def asked(*first: Path, last: Path | None = None, cwd: Path) -> tuple[int, dict[str, Any]]:
    """The command in a process with these folders first (and last) in its import path."""
    paths = [*first, ROOT, *([last] if last else [])]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "agentos.core.communication.voice.cli", "doctor", "--json"],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, {check["name"]: check for check in told["checks"]}


def test_a_sound_installation_is_in_order_and_nothing_is_made(home: Path, tmp_path: Path) -> None:
    code, checks = asked(cwd=tmp_path)
    assert code == 0
    assert {check["level"] for check in checks.values()} == {"ok"}
    assert SAMPLE_TEXT in checks["sample"]["found"]
    assert "pocketsphinx" in checks["speech to text"]["found"]
    assert "no engine for 'azure'" in checks["engine azure"]["found"]
    assert str(home) in checks["home"]["found"]
    assert not home.exists()


@pytest.mark.parametrize("name", ["actors", "machines"])
def test_a_package_that_takes_our_name_is_a_failure_that_names_both(name: str, tmp_path: Path) -> None:
    host = package(tmp_path / "host", name)
    code, checks = asked(host, cwd=tmp_path)
    assert code == 1
    check = checks[f"import {name}"]
    assert check["level"] == "fail"
    assert str(host / name / "__init__.py") in check["found"]
    assert str(ROOT / name) in check["found"]
    assert check["advice"]


def test_a_package_of_our_name_that_comes_later_is_a_warning(tmp_path: Path) -> None:
    host = tmp_path / "host"
    host.mkdir()
    (host / "machines.py").touch()
    code, checks = asked(last=host, cwd=tmp_path)
    assert code == 0
    assert checks["import machines"]["level"] == "warn"
    assert str(host / "machines.py") in checks["import machines"]["found"]


def test_a_host_whose_agentos_is_no_namespace_is_a_failure_in_its_folder(tmp_path: Path) -> None:
    host = package(tmp_path / "host", "agentos")
    code, checks = asked(cwd=host)
    assert code == 1
    assert checks["import agentos"]["level"] == "fail"
    assert str(host / "agentos" / "__init__.py") in checks["import agentos"]["found"]
    assert "__init__.py" in checks["import agentos"]["advice"]


@pytest.mark.parametrize("name", ["agentos/core", "agentos/core/communication"])
def test_so_is_one_further_down(name: str, tmp_path: Path) -> None:
    host = package(tmp_path / "host", name)
    check = found(list(doctor._clashes([str(ROOT), str(host)])), "import agentos")
    assert check.level is Level.FAIL
    assert str(host / name / "__init__.py") in check.found


@pytest.mark.parametrize("name", ["agentos", "agentos/core", "agentos/core/communication"])
def test_such_a_host_does_hide_the_voice_package_first_or_last_in_the_path(name: str, tmp_path: Path) -> None:
    host = package(tmp_path / "host", name)
    for paths, hidden in (([host, ROOT], True), ([ROOT, host], True), ([ROOT], False)):
        done = subprocess.run(
            [sys.executable, "-P", "-S", "-c", "import agentos.core.communication.voice"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ("ModuleNotFoundError: No module named 'agentos" in done.stderr) is hidden


def test_a_namespace_of_a_host_is_no_clash(tmp_path: Path) -> None:
    host = package(tmp_path / "host", "agentos/other")
    assert found(list(doctor._clashes([str(host), str(ROOT)])), "import agentos").level is Level.OK


def test_another_distribution_that_provides_our_names_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    owners = {"actors": ["agentos_voice", "theatre"], "machines": ["agentos-voice"]}
    monkeypatch.setattr(metadata, "packages_distributions", lambda: owners)
    checks = list(doctor._clashes([]))
    assert found(checks, "import actors").level is Level.FAIL
    assert "theatre" in found(checks, "import actors").found
    assert found(checks, "import machines").level is Level.OK


def test_a_home_that_can_not_be_made_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check = found(list(doctor._home(tmp_path / "file" / "home")), "home")
    assert check.level is Level.FAIL
    assert "AGENTOS_VOICE_HOME" in check.advice


def test_the_home_is_really_tried_and_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(descriptor)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    for home in (tmp_path, tmp_path / "not" / "there" / "yet"):
        assert found(list(doctor._home(home)), "home").level is Level.OK
    assert len(synced) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_looks_writable_and_is_not_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    check = found(list(doctor._home(tmp_path / "home")), "home")
    assert check.level is Level.FAIL
    assert "No space left" in check.found
    assert list(tmp_path.iterdir()) == []


def test_a_home_on_a_file_system_that_takes_no_files_is_a_failure() -> None:
    check = found(list(doctor._home(Path("/proc/self/voice"))), "home")  # also for root, whom no mode stops
    assert check.level is Level.FAIL
    assert "can't be written" in check.found


def test_a_variable_that_is_no_setting_is_a_warning_with_the_nearest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(list(doctor._settings()), "settings").level is Level.OK
    monkeypatch.setenv("AGENTOS_VOICE_LOGLEVEL", "debug")
    check = found(list(doctor._settings()), "settings")
    assert check.level is Level.WARN
    assert "AGENTOS_VOICE_LOGLEVEL" in check.found
    assert check.advice == "did you mean AGENTOS_VOICE_LOG_LEVEL?"


def test_with_a_warning_not_all_is_in_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ok, warned = Check("sample", Level.OK, "heard"), Check("settings", Level.WARN, "X is set")
    for checks, last in (([ok], "all is in place"), ([ok, warned], "it will work; not ideal: settings")):
        monkeypatch.setattr("agentos.core.communication.voice.cli.doctor.examine", lambda _, checks=checks: checks)
        assert main(["doctor"]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == last


def test_a_full_disk_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LOW_SPACE_BYTES", 1 << 62)
    assert found(list(doctor._home(tmp_path)), "home").level is Level.WARN


def test_the_database_is_told_with_its_schema(home: Path) -> None:
    assert "none yet" in found(list(doctor._database(None)), "database").found
    open_store(home / "voice.db", busy_timeout_seconds=2).close()
    check = found(list(doctor._database(None)), "database")
    assert check.level is Level.OK
    assert f"schema {HEAD}, 0 sessions, 0 evidence records" in check.found


def test_a_database_of_a_newer_version_or_none_at_all_is_a_failure(home: Path) -> None:
    open_store(home / "voice.db", busy_timeout_seconds=2).close()
    with sqlite3.connect(home / "voice.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    check = found(list(doctor._database(None)), "database")
    assert check.level is Level.FAIL
    assert "newer version" in check.found
    for leftover in home.glob("voice.db*"):
        leftover.unlink()
    (home / "voice.db").write_text("no database")
    assert found(list(doctor._database(None)), "database").level is Level.FAIL


def test_samples_that_no_result_names_are_found_and_recovered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert found(examine(tmp_path), "recordings").found == "none yet"
    left = Home(tmp_path)
    with closing(left.store):
        named, unnamed = ended(left, "1"), ended(left, "2", named=False)
        damaged = ended(left, "3")
        left.write(session("4"), sound(10))
    (left.recordings / damaged.session_id / "000000.flac").write_bytes(b"")
    here = [check for check in examine(tmp_path) if check.name == "recordings"]
    assert [check.level for check in here] == [Level.WARN, Level.WARN]
    assert unnamed.session_id in here[0].found
    assert "agentos-voice recover" in here[0].advice
    assert "voice-4" in here[1].found

    assert main(["recover", "--home", str(tmp_path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    ready = [str(left.recordings / of.session_id / "recording.flac") for of in (named, unnamed)]
    assert sorted(said["recordings_ready"]) == ready
    assert said["recordings_failed"] == [str(left.recordings / damaged.session_id / "recording.flac")]
    assert said["recordings_of_nobody"] == ["voice-4"]
    here = [check for check in examine(tmp_path) if check.name == "recordings"]
    assert [check.found.partition(":")[0] for check in here] == ["samples of unknown sessions", "damaged"]
    (tmp_path / "voice.db").rename(tmp_path / "elsewhere")
    assert "no database names" in found(examine(tmp_path), "recordings").found


def test_a_damaged_recording_alone_is_a_warning_too(tmp_path: Path) -> None:
    left = Home(tmp_path)
    with closing(left.store):
        damaged = ended(left, "1")
        (left.recordings / damaged.session_id / "000000.flac").write_bytes(b"")
        assert len(finishing(left).run().failed) == 1
    (check,) = doctor._recordings(tmp_path)
    assert check.level is Level.WARN
    assert check.found == f"damaged: 1 ({damaged.session_id})"


@pytest.mark.parametrize(("mode", "level"), [(0o644, Level.OK), (0o620, Level.WARN), (0o602, Level.WARN)])
def test_heads_that_others_can_write_are_a_warning(
    mode: int, level: Level, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = tmp_path / "the heads"
    heads.touch()
    heads.chmod(mode)
    monkeypatch.setenv("AGENTOS_VOICE_HEADS", str(heads))
    (check,) = doctor._heads(home)
    assert check.level is level
    assert ("others can write it" in check.found) is (level is Level.WARN)
    assert not check.advice or os.system(check.advice) == 0
    (check,) = doctor._heads(home)
    assert check.level is Level.OK


def test_heads_are_held_against_the_chain_and_belong_elsewhere(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(home / "voice.db", busy_timeout_seconds=2).close()
    heads = tmp_path / "heads"

    def told(path: Path | None) -> Check:
        monkeypatch.setenv("AGENTOS_VOICE_HEADS", "" if path is None else str(path))
        return found(list(doctor._heads(None)), "heads")

    assert (told(None).level, told(heads).level) == (Level.OK, Level.OK)
    assert told(home / "heads").level is Level.WARN
    assert told(tmp_path / "nowhere" / "heads").level is Level.FAIL
    assert told(tmp_path).level is Level.FAIL
    heads.write_text(f"3:{'ab' * 32}\n")
    assert told(heads).level is Level.FAIL
    assert "records were cut off" in told(heads).found


def test_a_missing_embedded_engine_fails_and_the_other_checks_are_still_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.Engines, "missing", lambda _, name: f"{text_of(name)} is away")
    monkeypatch.setattr(pocketsphinx, "PocketsphinxEngine", None)
    checks = examine()
    assert found(checks, "speech to text") == Check(
        "speech to text", Level.FAIL, "pocketsphinx is away", "install it again: pip install pocketsphinx"
    )
    assert found(checks, "sample").level is Level.FAIL
    assert found(checks, "python").level is Level.OK


def test_a_wrong_setting_is_a_finding_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOS_VOICE_LOOP", "twisted")
    check = found(examine(), "home")
    assert check.level is Level.FAIL
    assert "AGENTOS_VOICE_LOOP" in check.found


@pytest.mark.parametrize(("most", "level"), [(20_000, Level.OK), (1_024, Level.WARN)])
def test_the_calls_that_the_limit_on_open_files_allows_are_told(
    most: int, level: Level, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_files, "most_open_files", lambda: most)
    (check,) = doctor._open_files()
    assert check.level is level
    assert f"enough for {open_files.calls_for(most):,} recorded calls" in check.found
    assert bool(check.advice) is (level is Level.WARN)
