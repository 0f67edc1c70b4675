"""`python -m agentos.core.communication.voice.cli`, the same as `agentos-voice`."""

import sys

from agentos.core.communication.voice.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
