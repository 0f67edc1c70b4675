"""What other distributions, and the host, bring along under a name: providers and speech-to-text engines.

Installed distributions offer them by entry points. Nothing of them is imported before somebody asks for the name. What the host
hands over goes before an entry point of the same name; a name that this package has itself is nobody else's.
"""

from collections.abc import Collection, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from agentos.core.communication.voice.errors import UnusableExtension
from agentos.core.communication.voice.logs import logger
from machines.names import NAME

NO_NAME: Final = frozenset({"none"})  # says that a session has no engine

log = logger(__name__)


class EntryPointGroup:
    """The entry points of one group by name, as installed when this process first asked. `own` are the names that are this
    package's: an entry point that takes one is left aside, and the log says so."""

    def __init__(self, group: str, own: Collection[str]) -> None:
        self.group = group
        self._own = own
        self._loaded: dict[str, object] = {}
        self._told = False

    def names(self) -> tuple[str, ...]:
        """What they are called, sorted. Nothing is imported."""
        return tuple(sorted(name for name in self._points() if name not in self._own))

    def __contains__(self, name: str) -> bool:
        return name not in self._own and name in self._points()

    def load(self, name: str) -> object:
        """What the entry point of this name points at. Raises `UnusableExtension` when its distribution is broken, or when two
        distributions have the name."""
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def unusable(self, name: str, problem: str) -> UnusableExtension:
        """The error that says what is wrong with what this name points at, and whose it is."""
        return UnusableExtension(self.group, name, problem, distribution=_owners(self._points().get(name, ())))

    def taken(self) -> dict[str, str]:
        """The distributions, by name, that offer what is this package's own."""
        return {name: _owners(points) for name, points in sorted(self._points().items()) if name in self._own}

    def _load(self, name: str) -> object:
        points = self._points().get(name, ())
        if len(points) > 1:
            raise self.unusable(name, "two distributions have this name: uninstall one")
        check_name(self.group, name)
        try:
            return points[0].load()
        except Exception as error:  # whatever the module of somebody else raises
            log.exception("extension_broken", group=self.group, name=name, distribution=_owners(points))
            raise self.unusable(name, f"it can't be loaded: {type(error).__name__}: {error}") from error

    def _points(self) -> Mapping[str, tuple[EntryPoint, ...]]:
        found = _installed(self.group)
        if not self._told:
            self._told = True
            for name in found.keys() & set(self._own):
                log.warning("extension_left_aside", group=self.group, name=name, distribution=_owners(found[name]))
        return found


def check_name(group: str, name: object) -> str:
    """The name, if it may be registered. Raises `UnusableExtension`."""
    if isinstance(name, str) and NAME.fullmatch(name) and name not in NO_NAME:
        return name
    problem = "its name must be a lower-case letter, then at most 63 letters, digits, _ or -, and not 'none'"
    raise UnusableExtension(group, f"{name!s:.64}", problem)


@cache
def _installed(group: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """The entry points of a group by name. Looked up once: it reads the metadata of everything that is installed."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in entry_points(group=group):
        others = found.get(point.name, ())
        if _distribution(point) not in [
            _distribution(other) for other in others
        ]:  # one that is found twice on the path
            found[point.name] = (*others, point)
    return found


def _owners(points: Collection[EntryPoint]) -> str:
    return " and ".join(sorted(_distribution(point) for point in points))


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.module
