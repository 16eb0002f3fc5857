"""A process that treats a handler as Lambda does: ``python -m tests.deploy.runtime dotted.name``.

It imports the handler once, and calls it for each line of its input: ``{"event": …, "timeout": seconds, "promised":
seconds}``. The context counts down in real time from what is promised, and who has not returned by the timeout is
killed: the same, but where a test lets the machine stall. It answers with a line: what the handler returned,
or the error; what it printed, which is CloudWatch's log; whether the process was new; the seconds it took.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FUNCTION_NAME = "shop-flush"
TIMED_OUT = {"error": "Sandbox.Timedout"}


@dataclass
class Context:
    """The part of Lambda's context that says how long there is."""

    deadline: float
    function_name: str = FUNCTION_NAME

    def get_remaining_time_in_millis(self) -> int:
        return max(round((self.deadline - time.monotonic()) * 1000), 0)


def end() -> None:
    """As the service ends a sandbox whose invocation took too long."""
    os.write(1, json.dumps(TIMED_OUT).encode() + b"\n")
    os._exit(1)


def invoke(handler: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to one invocation."""
    started = time.monotonic()
    timer = threading.Timer(asked["timeout"], end)
    timer.daemon = True
    timer.start()
    log = io.StringIO()
    try:
        with contextlib.redirect_stdout(log):
            result = handler(asked["event"], Context(started + asked["promised"]))
        answer: dict[str, Any] = {"result": json.loads(json.dumps(result))}  # Lambda's is JSON, too
    except Exception as error:  # noqa: BLE001 - the service tells whatever it is
        answer = {"error": type(error).__name__, "message": str(error)}
    finally:
        timer.cancel()
    return {**answer, "log": log.getvalue().splitlines(), "seconds": time.monotonic() - started}


def main() -> None:
    module, _, name = sys.argv[1].rpartition(".")
    handler = getattr(importlib.import_module(module), name)
    cold = True
    for line in sys.stdin:
        answer = invoke(handler, json.loads(line))
        sys.stdout.write(json.dumps({**answer, "cold": cold}) + "\n")
        sys.stdout.flush()
        cold = False


if __name__ == "__main__":
    main()
