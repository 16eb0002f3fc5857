"""How the demo ends where nobody pressed Ctrl-C: it leaves no process, and says why."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.example.test_demo import ROOT, STARTS, command, processes_of
from tests.servers import free_port


@pytest.fixture
def started(tmp_path: Path) -> subprocess.Popen[str]:
    """A demo that has said that it runs."""
    arguments, environment = command(tmp_path, "--port", free_port(), "--segment-port", free_port())
    with (tmp_path / "demo.out").open("w") as out:
        process = subprocess.Popen(
            arguments, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT, text=True
        )
    deadline = time.monotonic() + STARTS
    while "Ctrl-C stops everything" not in output(tmp_path):
        assert process.poll() is None, output(tmp_path)
        assert time.monotonic() < deadline, "the demo did not start"
        time.sleep(0.1)
    return process


def output(folder: Path) -> str:
    return (folder / "demo.out").read_text()


def kill_the_worker(demo: subprocess.Popen[str], folder: Path) -> None:
    [worker] = [pid for pid in processes_of(folder) if "worker" in Path(f"/proc/{pid}/cmdline").read_text().split("\0")]
    os.kill(worker, signal.SIGKILL)


def terminate(demo: subprocess.Popen[str], folder: Path) -> None:
    demo.terminate()


def hang_up(demo: subprocess.Popen[str], folder: Path) -> None:
    demo.send_signal(signal.SIGHUP)


@pytest.mark.parametrize(
    ("end", "status", "last_words"),
    [
        (kill_the_worker, 1, "The worker ended with status -9. The end of"),
        (terminate, 0, "Stopping."),
        (hang_up, 0, "Stopping."),
    ],
)
def test_demo_that_ends_stops_all_its_processes(
    started: subprocess.Popen[str],
    tmp_path: Path,
    end: Callable[[subprocess.Popen[str], Path], None],
    status: int,
    last_words: str,
) -> None:
    try:
        end(started, tmp_path)
        assert started.wait(20) == status
    finally:
        started.kill()
        started.wait()
    assert last_words in output(tmp_path)
    assert processes_of(tmp_path) == []
