"""The processes: started, killed, started again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.torture.process import CLOCK

ROOT = Path(__file__).parents[2]
DAY = 86_400


@dataclass
class Member:
    """One place in the fleet, and the process that fills it now."""

    role: str
    arguments: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = None
    killed: bool = False


class Fleet:
    """A context manager; at its end nothing runs any more."""

    def __init__(
        self, directory: Path, environment: Mapping[str, str], members: Sequence[Member], random: random.Random
    ) -> None:
        self._directory = directory
        self._environment = {**environment, "TMPDIR": str(directory)}
        self._members = members
        self._random = random
        self._logs: dict[str, IO[bytes]] = {}
        self.kills: Counter[str] = Counter()
        self.clocks: Counter[str] = Counter()
        self.deaths: list[str] = []
        """Who ended without having been killed: nobody should."""

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for member in self._members:
            self._kill(member)
        for log in self._logs.values():
            log.close()

    def revive(self) -> None:
        """Start whoever does not run."""
        for member in self._members:
            process = member.process
            if process is not None and process.poll() is None:
                continue
            if process is not None and not member.killed:
                self.deaths.append(f"{member.role} ended by itself with {process.returncode}")
            self._start(member)

    def kill_one(self) -> None:
        """SIGKILL one process, of those at work if there are such."""
        at_work = [member for member in self._members if self._is_ready(member)]
        victim = self._random.choice(at_work or self._members)
        self.kills[victim.role] += 1
        self._kill(victim)

    def is_at_work(self) -> bool:
        """Whether most of them are."""
        return sum(map(self._is_ready, self._members)) > len(self._members) / 2

    def pids(self, role: str) -> list[int]:
        return [m.process.pid for m in self._members if m.role == role and m.process and m.process.poll() is None]

    def run(self, *command: str, clock: int = 0) -> str:
        """Run a command of the site's to its end; what it wrote."""
        environment = {**os.environ, **self._environment, CLOCK: str(clock)}
        with (self._directory / "commands.log").open("ab") as log:
            arguments = [sys.executable, "-m", *command]
            done = subprocess.run(arguments, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, stderr=log)
        return done.stdout.decode().strip()

    def log(self, role: str) -> str:
        path = self._directory / f"{role}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _start(self, member: Member) -> None:
        clock = self._random.choices([0, DAY, -DAY], [8, 1, 1])[0]
        self.clocks[{0: "right", DAY: "a day ahead", -DAY: "a day behind"}[clock]] += 1
        if member.role not in self._logs:
            self._logs[member.role] = (self._directory / f"{member.role}.log").open("ab")
        member.killed = False
        member.process = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.process", member.role, *member.arguments],
            cwd=ROOT,
            env={**os.environ, **self._environment, CLOCK: str(clock)},
            stdout=self._logs[member.role],
            stderr=subprocess.STDOUT,
        )

    def _is_ready(self, member: Member) -> bool:
        process = member.process
        if process is None or process.poll() is not None:
            return False
        return (self._directory / "ready" / str(process.pid)).exists()

    def _kill(self, member: Member) -> None:
        if member.process is not None:
            member.killed = member.process.poll() is None
            member.process.send_signal(signal.SIGKILL)
            member.process.wait()
