"""`agentos-voice diagrams`: draw the diagrams, or check that the drawn ones are up to date."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from agentos.core.communication.voice.cli.exits import FAILED, InputError
from agentos.core.communication.voice.cli.options import Json
from agentos.core.communication.voice.cli.outcome import CommandOutcome
from agentos.core.communication.voice.diagrams import compare, draw


def diagrams(
    *,
    output: Annotated[Path, Parameter(help="The folder to write to.")] = Path("diagrams"),
    check: Annotated[
        bool, Parameter(negative=(), help="Write nothing; fail when a file is stale, missing or extra.")
    ] = False,
    json_output: Json = False,
) -> CommandOutcome:
    """Draw each state machine, and the messages between actors, as Mermaid and SVG, from the code itself."""
    del json_output
    drawn = draw()
    if check:
        wrong = compare(drawn, output)
        data = {"folder": str(output), "files": sorted(drawn), "fresh": not wrong, "wrong": wrong}
        if not wrong:
            return CommandOutcome(data, (Text(f"{len(drawn)} diagrams in {output} are fresh"),))
        told = ", ".join(f"{name} is {what}" for name, what in wrong.items())
        return CommandOutcome(data, (), FAILED, f"{told} in {output}; draw them again with `agentos-voice diagrams`")
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, text in drawn.items():
            (output / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"can't write to {output}: {error.strerror}; give another folder with --output") from error
    files = [str(output / name) for name in sorted(drawn)]
    return CommandOutcome({"folder": str(output), "files": sorted(drawn)}, [Text(file) for file in files])
