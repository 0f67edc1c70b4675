"""Who tells whom what, read from the source of the actors and of the ports.

What an actor takes is its `handles` table. What it sends is found in its syntax tree: `out.tell(to, Message(...))`, `out.port`,
`out.reply`, and the same effects kept as tuples until they may go out. A port's facts go back to those who gave it work. What a
session does with whatever part of a call (spawning it, passing on its news, releasing its port) is read from the standard parts
and the fields of `PartReport`.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args, get_type_hints

from actors.runtime.actor import IGNORE, Actor, Exited, Gone
from actors.voice.evidence import EvidenceActor
from actors.voice.messages import audio, directory, events, evidence, media, parts, sessions, speech
from actors.voice.policy import PolicyActor
from actors.voice.quality import QualityActor
from actors.voice.recorder import RecorderActor
from actors.voice.session import SessionActor
from actors.voice.standard_parts import STANDARD_PARTS
from actors.voice.supervisor import Supervisor
from actors.voice.transcriber import TranscriberActor

_MESSAGES: Final = (audio, media, speech, parts, sessions, evidence, directory, events)
ACTORS: Final[tuple[type[Actor], ...]] = (
    Supervisor,
    PolicyActor,
    EvidenceActor,
    SessionActor,
    RecorderActor,
    TranscriberActor,
    QualityActor,
)
SERVICE, DIRECTORY, SYSTEM = "service", "directory", "actor system"
_VOICE = "agentos.core.communication.voice"
_PORTS: Final[Mapping[str, str]] = {
    "media": f"{_VOICE}.recording.port",
    "speech": f"{_VOICE}.stt.port",
    "store": f"{_VOICE}.storage.port",
}
_SERVICE_MODULES: Final = (f"{_VOICE}.async_service", f"{_VOICE}.running.runtime", f"{_VOICE}.running.resuming", f"{_VOICE}.sessions.door")
_KNOWN_TO_SERVICE: Final = (Supervisor, SessionActor)  # the actor that the service spawned, and the session that `Changed` names
_EFFECTS: Final = {"tell": "TELL", "port": "PORT", "reply": "REPLY", "spawn": "SPAWN"}


class FlowKind(str, Enum):
    """The way of a message: `tell` to a mailbox, `work` to a port, `fact` from a port, `reply` to an asker."""

    TELL = "tell"
    WORK = "work"
    FACT = "fact"
    REPLY = "reply"


class Flow(NamedTuple):
    """The flow of one message: its name, its sender, its receivers, and its way."""

    message: str
    sender: str
    receivers: tuple[str, ...]
    kind: FlowKind


class _Sent(NamedTuple):
    """One effect found in the source: `TELL`, `PORT`, `REPLY` or `SPAWN`, the last part of its target's name, and its value."""

    effect: str
    target: str
    what: str


def nodes() -> tuple[str, ...]:
    """All senders and receivers, in the order in which they are drawn."""
    return (SERVICE, DIRECTORY, *(name_of(actor) for actor in ACTORS), *_PORTS, SYSTEM)


def name_of(actor: type[Actor]) -> str:
    """An actor's name in a diagram: its class, in lower case, without "Actor"."""
    return actor.__name__.removesuffix("Actor").lower()


def parents() -> dict[str, str]:
    """The parent of each actor that another actor spawns."""
    found = {name_of(actor): name_of(parent) for parent in ACTORS for actor in ACTORS if _spawns(parent, actor)}
    return {name: found[name] for name in nodes() if name in found}


_OF_CHILDREN = (Exited, Gone)  # messages that the system itself tells


def flows() -> list[Flow]:
    """Every message between two nodes, subject by subject, in the order of declaration."""
    order = {name: at for at, name in enumerate([*_messages(), *(told.__name__ for told in _OF_CHILDREN)])}
    places = {node: at for at, node in enumerate(nodes())}
    found = {*_between_actors(), *_from_ports(), *_from_service(), *_from_system()}
    return sorted(found, key=lambda flow: (order[flow.message], places[flow.sender], flow.kind.value, flow.receivers))


def _between_actors() -> Iterator[Flow]:
    for actor in ACTORS:
        for sent in _sent_by(actor):
            if sent.what not in _messages():
                continue
            if sent.effect == "TELL":
                receivers = _handlers(sent.what, (other for other in ACTORS if other is not actor))
                yield Flow(sent.what, name_of(actor), receivers, FlowKind.TELL)
            elif sent.effect == "PORT":
                yield Flow(sent.what, name_of(actor), (sent.target,), FlowKind.WORK)
            elif sent.effect == "REPLY":
                yield Flow(sent.what, name_of(actor), (SERVICE,), FlowKind.REPLY)
    yield from _for_parts()


def _for_parts() -> Iterator[Flow]:
    """What a session hands to ports for its parts, and its supervisor once the session can't any more."""
    for news in get_args(get_args(get_type_hints(parts.PartReport)["news"])[0]):
        yield Flow(news.__name__, name_of(SessionActor), (DIRECTORY,), FlowKind.WORK)
    for part in STANDARD_PARTS:
        if part.port:
            work = get_type_hints(type(part).release)["return"].__name__
            for actor in (SessionActor, Supervisor):
                yield Flow(work, name_of(actor), (part.port,), FlowKind.WORK)


def _from_ports() -> Iterator[Flow]:
    for port, module in _PORTS.items():
        workers = [actor for actor in ACTORS if any(s.effect == "PORT" and s.target == port for s in _sent_by(actor))]
        for message in _made_in(module):
            if receivers := _handlers(message, workers):
                yield Flow(message, port, receivers, FlowKind.FACT)


def _from_service() -> Iterator[Flow]:
    for module in _SERVICE_MODULES:
        for message in _made_in(module):
            if receivers := _handlers(message, _KNOWN_TO_SERVICE):
                yield Flow(message, SERVICE, receivers, FlowKind.TELL)


def _from_system() -> Iterator[Flow]:
    for told in _OF_CHILDREN:
        yield Flow(told.__name__, SYSTEM, _handlers(told.__name__, ACTORS), FlowKind.TELL)


def _handlers(message: str, actors: Iterable[type[Actor]]) -> tuple[str, ...]:
    return tuple(name_of(actor) for actor in actors if message in _handled(actor))


def _handled(actor: type[Actor]) -> set[str]:
    """The messages that an actor handles in any phase."""
    handles: Mapping[Any, Any] = actor.handles
    if all(isinstance(key, type) for key in handles):
        handles = {"": handles}
    return {kind.__name__ for table in handles.values() for kind, rule in table.items() if rule is not IGNORE}


def _messages() -> list[str]:
    return [
        name
        for module in _MESSAGES
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__
    ]


def _spawns(parent: type[Actor], child: type[Actor]) -> bool:
    if parent is SessionActor:
        return any(part.kind is child for part in STANDARD_PARTS)
    return any(sent.effect == "SPAWN" and sent.what == child.__name__ for sent in _sent_by(parent))


def _sent_by(actor: type[Actor]) -> tuple[_Sent, ...]:
    return _sent(actor.__module__, actor.__name__)


@cache
def _sent(module: str, actor: str) -> tuple[_Sent, ...]:
    """The effects of an actor, its own and those of values that it makes (its outbox)."""
    homes = {name: import_module(module).__dict__[name].__module__ for name in _values_made(_tree(module), actor)}
    trees = [_class(_tree(home), name) for name, home in [(actor, module), *sorted(homes.items())]]
    return tuple(sent for tree in trees if tree is not None for sent in _Reader(tree).effects())


def _values_made(tree: ast.Module, actor: str) -> set[str]:
    """The names of classes in `actors`, other than messages and actors, of which this actor makes instances."""
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("actors.")
        for alias in node.names
    }
    others = imported - set(_messages()) - {known.__name__ for known in ACTORS}
    body = _class(tree, actor)
    return {name for name in _calls(body) if name in others} if body is not None else set()


def _made_in(module: str) -> list[str]:
    known = set(_messages())
    return sorted({name for name in _calls(_tree(module)) if name in known})


def _calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


def _class(tree: ast.Module, name: str) -> ast.ClassDef | None:
    return next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)


@cache
def _tree(module: str) -> ast.Module:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"there is no source of {module}", name=module)
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


class _Reader:
    """Reads the effects out of one class; annotations and assignments give the types of names."""

    def __init__(self, tree: ast.ClassDef) -> None:
        self._methods = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        self._returns = {method.name: _type_name(method.returns) for method in self._methods}
        self._fields: dict[str, str] = {}
        for method in self._methods:
            for name, kind in self._assigned(method, self._parameters(method)):
                if kind and name.startswith("self."):
                    self._fields[name.removeprefix("self.")] = kind

    def effects(self) -> list[_Sent]:
        """Every effect of the class."""
        return [sent for method in self._methods for sent in self._of(method)]

    def _parameters(self, method: ast.FunctionDef) -> dict[str, str]:
        return {argument.arg: _type_name(argument.annotation) for argument in method.args.args}

    def _assigned(self, method: ast.FunctionDef, types: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        for node in ast.walk(method):
            if isinstance(node, ast.Assign):
                kind = self._type(node.value, types)
                yield from ((ast.unparse(target), kind) for target in node.targets)

    def _of(self, method: ast.FunctionDef) -> Iterator[_Sent]:
        types = self._parameters(method)
        types |= {name: kind for name, kind in self._assigned(method, types) if "." not in name}
        for node in ast.walk(method):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and _last_name(node.func.value) == "out"
            ):
                effect, arguments = _EFFECTS.get(node.func.attr), node.args
                if effect == "SPAWN":
                    arguments = [arguments[1], arguments[0]]
            elif isinstance(node, ast.Tuple) and len(node.elts) == 3:
                effect, arguments = _last_name(node.elts[0]), node.elts[1:]
            else:
                continue
            if effect in _EFFECTS.values():
                yield _Sent(str(effect), _last_name(arguments[0]), self._type(arguments[1], types))

    def _type(self, value: ast.expr, types: Mapping[str, str]) -> str:
        if isinstance(value, ast.Name):
            return types.get(value.id, "")
        if isinstance(value, ast.Attribute) and _last_name(value.value) == "self":
            return self._fields.get(value.attr, "")
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
            if value.func.id == "replace":
                return self._type(value.args[0], types)
            return value.func.id
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
            return self._returns.get(value.func.attr, "")
        return ""


def _type_name(annotation: ast.expr | None) -> str:
    if isinstance(annotation, ast.Constant):
        return str(annotation.value)
    return annotation.id if isinstance(annotation, ast.Name) else ""


def _last_name(value: ast.expr) -> str:
    if isinstance(value, ast.Attribute):
        return value.attr
    return value.id if isinstance(value, ast.Name) else ""
