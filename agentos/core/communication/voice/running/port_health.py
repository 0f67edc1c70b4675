"""Which ports answer: what the health watch finds, kept for those who ask, and in the log once."""

from collections.abc import Callable, Mapping

from actors.runtime.health import PortBack, PortSilent
from agentos.core.communication.voice.logs import logger

log = logger(__name__)

News = PortSilent | PortBack


class PortHealth:
    """Takes the news of the health watch, in the loop's thread, and hands each to the one in `on_news` with the port's name.
    What is known already is no news."""

    def __init__(self, on_news: Mapping[str, Callable[[News], None]]) -> None:
        self._on_news = on_news
        self._silent: tuple[str, ...] = ()

    @property
    def silent(self) -> tuple[str, ...]:
        """The names of the ports that do not answer, in the order in which they fell silent."""
        return self._silent

    def submit(self, work: News) -> None:
        """Take a news."""
        silent = isinstance(work, PortSilent)
        if silent is (work.port in self._silent):
            return
        if silent:
            self._silent = (*self._silent, work.port)
            log.error("port_silent", port=work.port)
        else:
            self._silent = tuple(port for port in self._silent if port != work.port)
            log.warning("port_back", port=work.port)
        if work.port in self._on_news:
            self._on_news[work.port](work)
