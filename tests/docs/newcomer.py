"""Somebody who follows docs/quickstart.md to the letter: writes its files, types its commands, waits for what it shows.

What a page shows in a block whose first line names a file goes into that file, as it stands or at its end; each line of
a ``console`` block that begins with ``$`` is typed, and the lines below it must appear. Only ports are others, the
wheel is the one of this checkout, and DynamoDB Local comes without docker.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.docs.pages import FENCE

FILE = re.compile(r"(?:# |\{# )([\w/]+\.\w+)(, at the end)?(?: #\})?\n")
LASTING = ("segment_fallback.testing", "runserver", "redis-server", "celery --app", "docker run")
"""Commands that stay in a terminal of their own."""
PATIENCE = 60.0


@dataclass(frozen=True)
class Write:
    """A file, new or longer."""

    path: str
    text: str
    append: bool


@dataclass(frozen=True)
class Type:
    """A command, and lines of what it says."""

    command: str
    shown: list[str]

    @property
    def lasts(self) -> bool:
        return any(each in self.command for each in LASTING)


def steps(text: str) -> Iterator[Write | Type]:
    """What the page wants done, in its order."""
    for _, language, code in FENCE.findall(text):
        if language == "console":
            for part in re.split(r"(?m)^\$ ", code)[1:]:
                command, *shown = part.rstrip().split("\n")
                yield Type(command, shown)
        elif language in ("python", "django"):
            named = FILE.match(code)
            assert named, f"which file is it?\n{code}"
            yield Write(named[1], code, append=bool(named[2]))


@dataclass
class Newcomer:
    """A folder, and the terminals that are open there. ``instead``: texts of the page, and what stands for them."""

    folder: Path
    instead: Mapping[str, str]
    given: frozenset[str] = frozenset()
    """Commands whose servers are there already."""
    terminals: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def follow(self, text: str) -> None:
        """Do all that this part of the page says."""
        for step in steps(text):
            if isinstance(step, Write):
                self.write(step)
            elif not step.lasts:
                self.type(step)
            elif not any(command in step.command for command in self.given):
                self.open_terminal(step)

    def write(self, step: Write) -> None:
        file = self.folder / step.path
        file.parent.mkdir(exist_ok=True)
        before = file.read_text() if step.append else ""
        file.write_text(f"{before}\n{self.here(step.text)}" if step.append else self.here(step.text))

    def type(self, step: Type) -> None:
        done = subprocess.run(
            self.shell(step.command),
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"$ {step.command}\n{done.stdout}{done.stderr}"
        for line in step.shown:
            assert self.here(line) in done.stdout, f"$ {step.command}\n{done.stdout}"

    def open_terminal(self, step: Type) -> None:
        log = self.log(step.command)
        with log.open("wb") as output:
            self.terminals[step.command] = subprocess.Popen(
                self.shell(step.command),
                cwd=self.folder,
                env=self.environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        for line in step.shown:
            self.wait_for(log, self.here(line))

    def wait_for(self, log: Path, line: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while line not in (said := log.read_text(errors="replace")):
            assert time.monotonic() < deadline, f"{line!r} is not in\n{said}"
            time.sleep(0.1)

    def start_again(self, *commands: str) -> None:
        """Ctrl-C, and the same command again."""
        for command in commands:
            self.end(command)
            self.open_terminal(Type(command, []))

    def end(self, command: str) -> None:
        terminal = self.terminals.pop(command)
        os.killpg(terminal.pid, signal.SIGTERM)
        try:
            terminal.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(terminal.pid, signal.SIGKILL)
            terminal.wait()

    def close(self) -> None:
        """End what runs, the last first."""
        for command in list(self.terminals)[::-1]:
            self.end(command)

    def log(self, command: str) -> Path:
        return self.folder / (re.sub(r"\W+", "-", command) + ".log")

    def here(self, text: str) -> str:
        for there, ours in self.instead.items():
            text = text.replace(there, ours)
        return text

    def shell(self, command: str) -> list[str]:
        activate = "" if command.startswith("python -m venv") else "source venv/bin/activate && "
        return ["bash", "-c", f"{activate}{self.here(command)}"]

    def environment(self) -> dict[str, str]:
        """As of a terminal that knows nothing of this checkout."""
        ours = ("DJANGO_", "PYTHON", "SEGMENT_", "AWS_", "COVERAGE", "VIRTUAL_ENV")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return {**kept, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}
