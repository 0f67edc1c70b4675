"""How many files and sockets this process may open, how many it has open, and how many of them are kept in reserve.

A service does not touch the limit, which belongs to the process that embeds it: a program that records many calls at once calls
`allow_open_files` before. A server, whose process is its own, raises it as far as it may.

The kernel gives each new descriptor the lowest number that is free. So its number says exactly, and at no cost, that at least
so many are open: nobody has to count them.
"""

import os
import resource
from typing import Final

OTHER_OPEN_FILES: Final = 1_024  # the program's own, the database, pipes, sockets
OF_A_CALL: Final = 2  # its stream's socket, and its recording while audio comes
MOST_OPEN_FILES: Final = 1_048_576  # what some systems call unlimited is a table that nobody can fill
_RESERVE: Final = 256  # the database for each thread that reads it, workers and their pipes, files that are sent
_RESERVE_SHARE: Final = 8  # of a low limit, an eighth


def allow_open_files(sessions: int) -> None:
    """Raise this process's soft limit on open files, as far as the hard one allows: a session that is recorded holds one.

    The usual soft limit of 1,024 is from the time of `select`; with it the thousandth recording would fail.
    """
    _raise_to(sessions + OTHER_OPEN_FILES)


def allow_most_open_files() -> int:
    """Raise this process's soft limit on open files to the hard one, at most to `MOST_OPEN_FILES`; what it is then."""
    _raise_to(MOST_OPEN_FILES)
    return open_files_limit()


def open_files_limit() -> int:
    """The soft limit on open files of this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_OPEN_FILES if soft == resource.RLIM_INFINITY else soft


def most_open_files() -> int:
    """The soft limit that a server of this user would have: the hard one, at most `MOST_OPEN_FILES`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_OPEN_FILES)


def connections_below(limit: int) -> int:
    """The first descriptor that no connection gets: those from there on are the reserve."""
    return limit - min(_RESERVE, limit // _RESERVE_SHARE)


def calls_below(limit: int) -> int:
    """The first descriptor from which on no new call is taken: half of the reserve is for the calls that run."""
    return limit - min(_RESERVE, limit // _RESERVE_SHARE) // 2


def calls_for(limit: int) -> int:
    """How many recorded calls, each with a stream of its own, a server has descriptors for."""
    return max(0, (connections_below(limit) - min(OTHER_OPEN_FILES, limit // 4)) // OF_A_CALL)


def next_descriptor() -> int:
    """The number that the next file gets that this process opens: so many are open at least. The limit when there is none."""
    try:
        found = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return open_files_limit()
    os.close(found)
    return found


def _raise_to(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
