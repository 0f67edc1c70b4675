"""The running services of a home, as commands choose them."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from agentos.core.communication.voice.cli.exits import InputError
from agentos.core.communication.voice.running.control.client import services_of

Pid = Annotated[int | None, Parameter(help="The process, where several services run in the home.")]
Instance = Annotated[str | None, Parameter(help="The service by its name, where one process runs several.")]


def chosen_services(home: Path, pid: int | None, instance: str | None) -> list[Path]:
    """The control sockets of the running services with this `pid` and `instance`; of all services if neither is given.

    Raises `ServiceNotReachable` if none runs, `InputError` if no running service matches.
    """
    found = services_of(home)
    chosen = [
        path for path in found if pid in (None, int(path.stem.partition("-")[0])) and instance in (None, path.stem)
    ]
    if not chosen:
        raise InputError(f"no such service runs; these do: {_names(found)}")
    return chosen


def chosen_service(home: Path, pid: int | None, instance: str | None) -> Path:
    """The control socket of the chosen running service, or of the only one. Raises the errors of `chosen_services`, and
    `InputError` if several match."""
    chosen = chosen_services(home, pid, instance)
    if len(chosen) > 1:
        raise InputError(f"several services run; choose one with --pid or --instance: {_names(chosen)}")
    return chosen[0]


def _names(paths: list[Path]) -> str:
    return ", ".join(path.stem for path in paths)
