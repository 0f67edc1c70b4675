"""How many files this process may open: a session that is recorded holds one.

The service does not touch this limit, which belongs to the process that embeds it. A program that records a thousand calls
at once calls `allow_open_files` before.
"""

import resource

OTHER_OPEN_FILES = 1_024  # the program's own, the database, pipes, sockets


def allow_open_files(sessions: int) -> None:
    """Raise this process's soft limit on open files, as far as the hard one allows: a session that is recorded holds one.

    The usual soft limit of 1,024 is from the time of `select`; with it the thousandth recording would fail.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = sessions + OTHER_OPEN_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
