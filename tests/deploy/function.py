"""A function as Lambda runs it: started when it is needed, kept warm, frozen between two invocations."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from tests.deploy.runtime import FUNCTION_NAME
from tests.serving.site import kill

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-W", "error::ResourceWarning", "-m", "tests.deploy.runtime"]


class Function:
    """One sandbox. ``handler``: its dotted name, as the template has it. ``environment``: all of its variables."""

    def __init__(self, handler: str, environment: Mapping[str, str]) -> None:
        self._command = [*COMMAND, handler]
        self._environment = environment
        self._process: subprocess.Popen[str] | None = None
        self._errors: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Function:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lose()
        self._errors.close()

    def lose(self) -> None:
        """The sandbox is gone, whatever it was doing; the next invocation is a cold start."""
        if self._process is not None:
            kill(self._process)
            self._process = None

    def begin(self, event: object = None, timeout: float = 120, promised: float | None = None) -> None:
        """Invoke it, and do not wait. ``promised``: the time that it is told it has, by default its timeout."""
        if self._process is None:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=dict(self._environment),
                stdin=pipe,
                stdout=pipe,
                stderr=self._errors,
                text=True,
                start_new_session=True,
            )
        self._process.send_signal(signal.SIGCONT)
        assert self._process.stdin
        asked = {"event": event, "timeout": timeout, "promised": promised or timeout}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()

    def wait(self) -> dict[str, Any]:
        """What came of it. Then the sandbox is frozen."""
        assert self._process
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line or "result" not in json.loads(line):
            self._errors.seek(0)
            sys.stderr.write(self._errors.read())  # where a test fails, pytest shows it
        answer: dict[str, Any] = json.loads(line)
        self._process.send_signal(signal.SIGSTOP)
        return answer

    def invoke(self, event: object = None, timeout: float = 120) -> dict[str, Any]:
        """Invoke it, and say what came of it."""
        self.begin(event, timeout)
        return self.wait()


def metrics(answer: Mapping[str, Any]) -> dict[str, float]:
    """The values, by name, of the metrics that CloudWatch makes of what an invocation printed."""
    found: dict[str, float] = {}
    for line in answer["log"]:
        entry = json.loads(line)
        for directive in entry["_aws"]["CloudWatchMetrics"]:
            assert directive["Namespace"] == "SegmentFallback"
            assert directive["Dimensions"] == [["FunctionName"]]
            assert entry["FunctionName"] == FUNCTION_NAME
            found |= {metric["Name"]: entry[metric["Name"]] for metric in directive["Metrics"]}
    return found
