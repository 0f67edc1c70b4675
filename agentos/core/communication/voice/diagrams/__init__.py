"""The project's diagrams, drawn from the code: each state machine, and the messages between actors.

As Mermaid, which many viewers draw from text, and as SVG with a layout of our own. The text is the same for the same code,
so a diagram that differs is stale.
"""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import machines
from agentos.core.communication.voice.diagrams.flow_diagram import actors_mermaid, actors_svg
from agentos.core.communication.voice.diagrams.message_flow import flows, parents
from agentos.core.communication.voice.diagrams.state_diagram import AnyLifecycle, machine_mermaid, machine_svg
from machines.lifecycle import Lifecycle


def draw() -> dict[str, str]:
    """Every diagram: the file's name and its text."""
    drawn: dict[str, str] = {}
    for machine in machines_declared():
        drawn[f"{machine.name}.mmd"] = machine_mermaid(machine)
        drawn[f"{machine.name}.svg"] = machine_svg(machine)
    found = flows()
    drawn["actors.mmd"] = actors_mermaid(found, parents())
    drawn["actors.svg"] = actors_svg(found)
    return drawn


def compare(drawn: dict[str, str], folder: Path) -> dict[str, str]:
    """The faults of the diagrams in `folder`: by file name, "missing", "stale" or "extra"."""
    there = {path.name: path for path in folder.iterdir()} if folder.is_dir() else {}
    wrong = {}
    for name in sorted({*drawn, *there}):
        if name not in there:
            wrong[name] = "missing"
        elif name not in drawn:
            wrong[name] = "extra"
        elif not there[name].is_file() or there[name].read_bytes() != drawn[name].encode():
            wrong[name] = "stale"
    return wrong


_PYTEST_PLUGIN = "pytest_plugin"  # needs pytest, which may not be installed


def machines_declared() -> list[AnyLifecycle]:
    """Every state machine that a module of `machines` declares, by name."""
    found: dict[str, AnyLifecycle] = {}
    for module in iter_modules(machines.__path__):
        if not module.ispkg and module.name != _PYTEST_PLUGIN:
            values = vars(import_module(f"{machines.__name__}.{module.name}")).values()
            found |= {value.name: value for value in values if isinstance(value, Lifecycle)}
    return [found[name] for name in sorted(found)]
