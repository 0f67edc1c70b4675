"""The commands by name, and their common parts: parsing, errors, exit codes."""

import os
import signal
import sys
from collections.abc import Sequence
from importlib import metadata

from cyclopts import App, CycloptsError

from agentos.core.communication.voice.cli.exits import (
    FAILED,
    OK,
    SIGNAL_BASE,
    USAGE,
    Interrupted,
    described,
    exit_code,
    first_error,
    one_line,
)
from agentos.core.communication.voice.cli.outcome import PROGRAM, CommandOutcome, print_json, print_problem, show
from agentos.core.communication.voice.secrets_in_text import without_secrets

_COMMANDS = "agentos.core.communication.voice.cli"
_DEBUG = "AGENTOS_VOICE_LOG_LEVEL"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (`arguments`, or those of the process) and return its exit code, one of `EXIT_CODES`.

    Never raises: an error is one line on stderr, or with `--json` one object on stdout.
    """
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in (tokens[: tokens.index("--")] if "--" in tokens else tokens)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(tokens, as_json=as_json)
    except BrokenPipeError:
        # Buffered output would fail again when the interpreter flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SIGNAL_BASE + signal.SIGPIPE


def _run(tokens: list[str], *, as_json: bool) -> int:
    try:
        outcome = application()(tokens)
        if isinstance(outcome, CommandOutcome):
            show(outcome, as_json=as_json)
            return outcome.code
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        return _failed(Interrupted(signal.SIGINT), as_json=as_json)
    except CycloptsError as error:
        return _failed(error, as_json=as_json)
    except Exception as error:  # noqa: BLE001 - the program's outermost call: any error becomes a line and a code
        return _failed(error, as_json=as_json)
    return OK


def _failed(error: BaseException, *, as_json: bool) -> int:
    error = first_error(error)
    message = one_line(str(error))
    if isinstance(error, CycloptsError):
        code, message = USAGE, f"{message} See `{' '.join((PROGRAM, *(error.command_chain or ()), '--help'))}`."
    elif isinstance(error, ImportError):
        code = FAILED
        message = f"a part of the program can't be imported ({message}); `{PROGRAM} doctor` says what is wrong"
    elif isinstance(error, KeyboardInterrupt):
        error = Interrupted(signal.SIGINT)
        code, message = exit_code(error), str(error)
    else:
        code = exit_code(error)
        message += _on_record(error)
        if code == FAILED and not _is_expected(error):
            message = f"internal error, {type(error).__name__}: {message}; with {_DEBUG}=debug it says where"
            _show_where(error)
    message = without_secrets(message)  # a token given in place of its id, say
    if as_json:
        print_json(described(error, code, message))
    else:
        print_problem(message)
    return code


def _is_expected(error: BaseException) -> bool:
    from agentos.core.communication.voice.errors import VoiceError  # noqa: PLC0415 - `--help` must not load pydantic

    return isinstance(error, VoiceError)


def _on_record(error: BaseException) -> str:
    """A hint to the evidence of a refusal."""
    from agentos.core.communication.voice.errors import PolicyDenied  # noqa: PLC0415 - as above

    if not isinstance(error, PolicyDenied):
        return ""
    return f"; the refusal is on record: {PROGRAM} evidence list {error.session_id}"


def _show_where(error: BaseException) -> None:
    if os.environ.get(_DEBUG, "").lower() == "debug":
        import traceback  # noqa: PLC0415 - only here

        sys.stderr.write("".join(traceback.format_exception(error)))


def application() -> App:
    """The tree of commands, none of which is imported yet."""
    app = App(
        name=PROGRAM,
        help="Voice calls with live transcripts, recordings and verifiable evidence.",
        help_epilogue="Every command takes --json. Settings come from AGENTOS_VOICE_* variables: see `settings`.",
        version=_version,
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        help_on_error=False,
    )
    _add(app, "call", "call:call", "Play a sound file through a real call: transcript, recording, evidence.")
    evidence = App(name="evidence", help="Verify the evidence chain, and show its records.")
    _add(
        evidence,
        "verify",
        "evidence:verify",
        "Verify the whole chain, and compare stored data and noted heads with it.",
    )
    _add(evidence, "head", "evidence:head", "The head of the chain, to be noted somewhere else.")
    _add(evidence, "list", "evidence:records", "The records of one session, or the newest of all.")
    app.command(evidence)
    _add(app, "sessions", "sessions:sessions", "The stored sessions, newest first.")
    _add(app, "events", "sessions:events", "The events of a session.")
    _add(app, "serve", "serve:serve", "Serve HTTP in front of a voice service, until a signal or a drain ends it.")
    _add(app, "top", "top:top", "A running service, live: its waiting actors and its problems.")
    _add(app, "trace", "trace:trace", "The steps of the actors of a running session.")
    _add(app, "recover", "recover:recover", "End the sessions of dead processes.")
    token = App(
        name="token", help="Access tokens: for the server, by role, and an admin's for calls of a high risk tier."
    )
    _add(token, "create", "tokens:create", "Make a token; it is shown only once.")
    _add(token, "list", "tokens:listing", "The tokens, without their secret.")
    _add(token, "revoke", "tokens:revoke", "Make a token invalid.")
    app.command(token)
    _add(app, "settings", "settings:settings", "Every setting, its value and the source of the value.")
    _add(app, "check", "check:check", "Search a model for a run that breaks a property.")
    _add(app, "simulate", "simulate:simulate", "Run days of the service with faults, each from one seed.")
    _add(app, "diagrams", "diagrams:diagrams", "Draw the state machines and the messages between actors.")
    _add(app, "doctor", "doctor:doctor", "Check that everything is in place, and say what to do.")
    return app


def _add(app: App, name: str, target: str, summary: str) -> None:
    app.command(f"{_COMMANDS}.{target}", name=name, help=summary)


def _version() -> str:
    try:
        return metadata.version("agentos-voice")
    except metadata.PackageNotFoundError:
        return "unknown (not installed)"
