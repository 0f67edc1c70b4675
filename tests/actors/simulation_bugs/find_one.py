"""Run days of the voice simulation of the `actors` on the path until one of them breaks a promise, and print which as JSON.

    PYTHONPATH=copy python find_one.py 14 200

Of 200 seeds it begins with number 14, and takes those before it last.

The answer has the `seed`, None if every seed held, and the `promise`; or the `error` that a step of the world ended with.
"""

import json
import sys
from typing import Any


def answer(first: int, seeds: int) -> dict[str, Any]:
    """What the first failing seed is, from this one on."""
    from actors.voice_simulation import voice_simulation  # noqa: PLC0415 - a bug may be such that it can't be loaded

    simulation = voice_simulation()
    for seed in (*range(first, seeds), *range(first)):
        try:
            day = simulation.run(seed)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what the bug did
            return {"seed": seed, "promise": "", "error": f"{type(error).__name__}: {error}"}
        if day.failure is not None:
            return {"seed": seed, "promise": day.failure.promise, "error": ""}
    return {"seed": None, "promise": "", "error": ""}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(answer(int(sys.argv[1]), int(sys.argv[2]))) + "\n")
