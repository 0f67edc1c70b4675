"""The limit on open files is raised when a program asks for it, and never by the service."""

import subprocess
import sys

CODE = """
import resource
from agentos.core.communication.voice.open_files import allow_open_files
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
allow_open_files({sessions})
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def soft_limit_for(sessions: int, code: str = CODE) -> int:
    done = subprocess.run(
        [sys.executable, "-c", code.format(sessions=sessions)], capture_output=True, text=True, timeout=60, check=True
    )
    return int(done.stdout)


def test_the_soft_limit_is_raised_for_as_many_sessions() -> None:
    assert soft_limit_for(100) == 1_124


def test_a_limit_that_is_high_enough_stays() -> None:
    assert soft_limit_for(100, CODE.replace("256", "2048")) == 2_048
