"""`agentos-voice doctor`: whether everything is in place."""

from rich.text import Text

from agentos.core.communication.voice.cli.exits import FAILED, OK
from agentos.core.communication.voice.cli.options import Home, Json
from agentos.core.communication.voice.cli.outcome import CommandOutcome, table
from agentos.core.communication.voice.doctor import Level, examine


def doctor(*, home: Home = None, json_output: Json = False) -> CommandOutcome:
    """Check Python, event loops, settings, home, database, speech to text, and clashes of names.

    The check writes one file into the home, and removes it again.
    """
    del json_output
    checks = examine(home)
    failed = [check for check in checks if check.level is Level.FAIL]
    rows = (
        (check.level.value, check.name, check.found + (f"; {check.advice}" if check.advice else "")) for check in checks
    )
    data = {
        "ok": not failed,
        "checks": [
            {"name": check.name, "level": check.level.value, "found": check.found, "advice": check.advice}
            for check in checks
        ],
    }
    warnings = [check.name for check in checks if check.level is Level.WARN]
    summary = f"it will work; not ideal: {', '.join(warnings)}" if warnings else "all is in place"
    problem = f"{len(failed)} of {len(checks)} checks failed: {', '.join(check.name for check in failed)}"
    parts = (table(("", "check", "found"), rows), *(() if failed else (Text(summary),)))
    return CommandOutcome(data, parts, FAILED if failed else OK, problem if failed else "")
