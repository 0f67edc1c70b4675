"""`agentos-voice settings`: every setting, its value, and the source of the value."""

import os
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from agentos.core.communication.voice.cli.options import Home, Json
from agentos.core.communication.voice.cli.outcome import CommandOutcome
from agentos.core.communication.voice.settings import VoiceSettings, load_settings, variable_of

HIDDEN = "(hidden)"


def settings(*, home: Home = None, json_output: Json = False) -> CommandOutcome:
    """Every setting: its variable, its value, the source of the value, and its purpose. Secrets are hidden."""
    del json_output
    overrides: dict[str, Any] = {} if home is None else {"home": home}
    loaded = load_settings(**overrides)
    rows = [_row(loaded, name, overrides) for name in VoiceSettings.model_fields]
    text: list[RenderableType] = []
    for row in rows:
        line = Text(row["variable"], style="bold")
        line.append(f" = {'(not set)' if row['value'] is None else row['value']}", style="not bold")
        line.append(f"  [{row['source']}]", style="not bold dim")
        text += [line, Padding(Text(row["description"], style="dim"), (0, 0, 0, 4))]
    return CommandOutcome({"settings": rows}, text)


def _row(loaded: VoiceSettings, name: str, overrides: dict[str, Any]) -> dict[str, Any]:
    value = getattr(loaded, name)
    if isinstance(value, SecretStr):
        value = HIDDEN
    elif isinstance(value, Path):
        value = str(value)
    elif isinstance(value, tuple):
        value = ", ".join(map(str, value)) or None
    return {
        "name": name,
        "value": value,
        "source": _source(loaded, name, overrides),
        "variable": variable_of(name),
        "description": VoiceSettings.model_fields[name].description,
    }


def _source(loaded: VoiceSettings, name: str, overrides: dict[str, Any]) -> str:
    if name in overrides:
        return "argument"
    if name not in loaded.model_fields_set:
        return "default"
    variables = {variable.upper() for variable, value in os.environ.items() if value}  # names are read in any case
    return "environment" if variable_of(name) in variables else "file"
