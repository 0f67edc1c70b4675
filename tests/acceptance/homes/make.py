"""Make a home with the code of an older commit, as a fixture for the code that comes after it.

    git worktree add --detach OLD COMMIT
    python3 -m venv OLD/.venv && OLD/.venv/bin/pip install -c OLD/constraints.txt OLD
    OLD/.venv/bin/python tests/acceptance/homes/make.py tests/acceptance/homes/COMMIT.tar.xz

Three processes have calls; the second and the third are killed in the middle of them. The archive has the folder `home` as they
left it, the file `heads` in which they noted heads, and `made.json`: the id of each call by what became of it, the tokens, and
the sessions, events and evidence records as the older code reads them.
"""

import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

SETTINGS = {
    "account_seconds": 0.2,
    "control_socket": "off",
    "log_level": "error",
    "recording_segment_seconds": 1,
    "recovery_interval_seconds": 3600,
    "resume_window_seconds": 3600,
}
WITH_A_SERVICE = '''
import fcntl, json, os, signal, sqlite3, sys
from array import array
from pathlib import Path
import anyio, soundfile
from agentos.core.communication.voice import (
    AsyncVoiceService, AudioEncoding, AudioFormat, STTProvider, VoiceProvider, errors, samples
)
from agentos.core.communication.voice.settings import load_settings
from agentos.core.communication.voice.storage.store import VoiceStore
from agentos.core.communication.voice.storage.tokens import Role, TokenStore
from machines.session import VoiceSession

known = json.loads(sys.argv[1])
home = load_settings().home
speech, _ = soundfile.read(Path(samples.__file__).with_name("go-forward.flac"), dtype="int16")
SENTENCE = speech.tobytes() + bytes(32_000)  # silence behind it ends the utterance
SENTENCE = SENTENCE[: len(SENTENCE) // 640 * 640]
NOISE = array("h", [(at * 7919) % 60_000 - 30_000 for at in range(320 * 100)]).tobytes()
RECORDED = {"recording_enabled": True, "caller": "Ada Lovelace"}
TELEPHONE = AudioFormat(encoding=AudioEncoding.MULAW, sample_rate=8000)
SILENCE = {"silence_timeout_seconds": 0.5} if "silence_timeout_seconds" in VoiceSession.model_fields else {}


async def call(service, name, metadata, engine=STTProvider.POCKETSPHINX, **more):
    session = await service.create_session("shop", VoiceProvider.LOCAL, engine, metadata, **more)
    known[name] = session.session_id
    return session.session_id


async def say(service, session_id, audio, size=640):
    for at in range(0, len(audio), size):
        await service.dispatch_audio_chunk(session_id, audio[at : at + size])
        await anyio.sleep(0.001)


async def until(service, session_id, happened):
    """Until an event of the session is such a one, and stored."""
    async for event in service.events(session_id):
        if happened(event):
            break
    await anyio.sleep(0.5)


async def settled(service, session_id):
    """Until all that came is recorded, and an account of the session is in evidence."""
    with VoiceStore.open_read_only(home / "voice.db") as store:
        while service.statistics().media.queued_frames or "audio_accounted" not in [
            record.operation for record in store.evidence(session_id)
        ]:
            await anyio.sleep(0.05)


def tell():
    os.write(1, json.dumps(known).encode())
'''

TOKENS = """
with VoiceStore.open(home / "voice.db", busy_timeout_seconds=5) as store:
    tokens = TokenStore(store)
    known["tokens"] = {
        role.value: tokens.create(role.value, role=role, project="shop" if role is Role.PROJECT else None) for role in Role
    }
    known["tokens"]["revoked"] = tokens.create("revoked")
    tokens.revoke(next(token.id for token in tokens.list() if token.name == "revoked"))
tell()
"""

ENDED = """
async def main():
    async with AsyncVoiceService() as service:
        ended = await call(service, "ended", RECORDED)
        await say(service, ended, SENTENCE)
        await service.stop_session(ended)
        telephone = await call(
            service, "telephone", RECORDED, STTProvider.WHISPER, audio_format=TELEPHONE, admin_token=known["tokens"]["admin"]
        )
        await say(service, telephone, NOISE[: 160 * 40], 160)
        await service.stop_session(telephone)
        if SILENCE:
            silent = await call(service, "silent", {}, **SILENCE)
            await say(service, silent, bytes(640 * 60))
            await until(service, silent, lambda event: event.event_type.value == "session_stopped")
        try:
            await call(service, "denied", {"requires_data_access": True})
        except errors.PolicyDenied as error:
            known["denied"] = error.session_id
        if hasattr(service, "recording"):  # otherwise it is packed when its call has stopped
            await service.recording(ended)
            await service.recording(telephone)

anyio.run(main)
tell()
"""

DIED_TWICE = """
async def main():
    async with AsyncVoiceService() as service:
        twice = await call(service, "died twice", {}, STTProvider.WHISPER, resumable=True)
        await say(service, twice, NOISE[: 640 * 50])
        await settled(service, twice)
        tell()
        os.kill(os.getpid(), signal.SIGKILL)

anyio.run(main)
"""

DIED = """
async def main():
    async with AsyncVoiceService() as service:
        await service.resume(known["died twice"], first_frame=60)
        resumable = await call(service, "resumable", RECORDED, resumable=True)
        await say(service, resumable, SENTENCE)
        await until(service, resumable, lambda event: event.event_type.value == "stt_final")
        await settled(service, resumable)
        accounted = await call(service, "accounted", {}, STTProvider.WHISPER, resumable=True)
        await say(service, accounted, NOISE[: 640 * 50])
        await settled(service, accounted)
        lost = await call(service, "lost", RECORDED, STTProvider.WHISPER)
        await say(service, lost, NOISE[: 640 * 75])
        await settled(service, lost)
        unpacked = await call(service, "unpacked", RECORDED, STTProvider.WHISPER)
        await say(service, unpacked, NOISE[: 640 * 30])
        await settled(service, unpacked)
        folder = os.open(home / "recordings" / unpacked, os.O_RDONLY)
        fcntl.flock(folder, fcntl.LOCK_EX)  # as another process that packs it
        await service.stop_session(unpacked)
        spilled = await call(service, "spilled", {}, STTProvider.WHISPER)
        await say(service, spilled, NOISE[: 640 * 30])
        await settled(service, spilled)
        database = sqlite3.connect(home / "voice.db", isolation_level=None)
        database.execute("BEGIN IMMEDIATE")
        try:
            await service.stop_session(spilled)
        except errors.EvidenceNotDurable as error:
            assert error.spilled
        else:
            raise AssertionError("the last record went into a locked database")
        tell()
        os.kill(os.getpid(), signal.SIGKILL)

anyio.run(main)
"""

READ = """
with VoiceStore.open_read_only(home / "voice.db") as store:
    sessions = store.sessions()
    known["sessions"] = {one.session_id: one.model_dump(mode="json") for one in sessions}
    known["events"] = {
        one.session_id: [event.model_dump(mode="json") for event in store.events(one.session_id)] for one in sessions
    }
    known["evidence"] = [record.model_dump(mode="json") for record in store.evidence()]
tell()
"""


def main() -> None:
    archive = Path(sys.argv[1]).absolute()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(folder)  # what is imported is what is installed
        for variable in [variable for variable in os.environ if variable.startswith("AGENTOS_VOICE_")]:
            del os.environ[variable]
        settings = {**SETTINGS, "home": folder / "home", "heads": folder / "heads"}
        os.environ.update({f"AGENTOS_VOICE_{setting.upper()}": str(value) for setting, value in settings.items()})
        known: object = {}
        for program, code in (
            (TOKENS, 0),
            (ENDED, 0),
            (DIED_TWICE, -signal.SIGKILL),
            (DIED, -signal.SIGKILL),
            (READ, 0),
        ):
            known = json.loads(run("-c", WITH_A_SERVICE + program, json.dumps(known), code=code))
        (folder / "made.json").write_text(json.dumps(known, indent=1))
        pack(folder, archive)


def run(*arguments: str, code: int = 0) -> str:
    """Run a Python process that has to end with this exit code, and return its output."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=300)
    if done.returncode != code:
        raise SystemExit(f"exit {done.returncode}, not {code}:\n{done.stdout}{done.stderr}")
    return done.stdout


def pack(folder: Path, archive: Path) -> None:
    def private(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        member.mode = 0o700 if member.isdir() else 0o600
        return member

    with tarfile.open(archive, "w:xz") as tar:
        for name in ("home", "heads", "made.json"):
            if (folder / name).exists():
                tar.add(folder / name, name, filter=private)


main()
