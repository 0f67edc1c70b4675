"""The options that several commands share."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print one JSON object instead of text.")]
Home = Annotated[
    Path | None,
    Parameter(name="--home", help="Folder of database and recordings, instead of the setting AGENTOS_VOICE_HOME."),
]
