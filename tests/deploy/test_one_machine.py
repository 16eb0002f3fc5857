"""systemd's units and the Procfile: well formed, and every command that they start exists."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from celery.bin.celery import celery
from django.core.management import get_commands, load_command_class

from segment_fallback.conf import Settings
from segment_fallback.delivery import archiving
from tests.deploy.templates import DEPLOY

UNITS = sorted((DEPLOY / "systemd").iterdir())
PROCFILE = dict(re.findall(r"(?m)^(\w+): (.+)$", (DEPLOY / "Procfile").read_text("utf-8")))


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, comment_prefixes="#")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "systemd" / name)
    return parser


COMMANDS = {
    path.name: unit(path.name)["Service"]["ExecStart"] for path in UNITS if path.suffix == ".service"
} | PROCFILE


def test_there_is_a_unit_for_each_process() -> None:
    names = ["segment-beat.service", "segment-flush.service", "segment-flush.timer", "segment-worker.service"]
    assert [path.name for path in UNITS] == names
    assert set(PROCFILE) == {"web", "worker", "beat", "release"}


@pytest.mark.parametrize("name", COMMANDS)
def test_command_exists_and_takes_its_arguments(name: str) -> None:
    program, *arguments = shlex.split(COMMANDS[name].replace("${PORT:-8000}", "8000"))
    if Path(program).name == "celery":
        assert arguments[:2] == ["--app", "shop"]
        command = celery.commands[arguments[2]]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {argument for argument in arguments[3:] if argument.startswith("--")} <= options
    elif Path(program).name == "python":
        assert arguments[0] == "manage.py"
        app = get_commands()[arguments[1]]
        assert isinstance(app, str)
        load_command_class(app, arguments[1]).create_parser("manage.py", arguments[1]).parse_args(arguments[2:])
    else:
        from gunicorn.config import Config  # type: ignore[import-untyped]

        assert program == "gunicorn"
        assert vars(Config().parser().parse_args(arguments))["bind"] == ["0.0.0.0:8000"]


def test_processes_are_given_the_time_that_a_flush_may_take() -> None:
    last_batch = 2 * Settings.SEND_TIMEOUT + archiving.PATIENCE + archiving.ASIDE_PATIENCE
    worker = unit("segment-worker.service")["Service"]
    assert int(worker["TimeoutStopSec"]) >= Settings.FLUSH_BUDGET + last_batch
    flush = unit("segment-flush.service")["Service"]
    budget = float(flush["ExecStart"].rpartition(" ")[2])
    assert int(flush["TimeoutStartSec"]) >= budget + last_batch
    assert unit("segment-flush.timer")["Timer"]["OnUnitActiveSec"] == "1min"
    assert budget < 60


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """It also looks for the programs and the folder, which here are others."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd: apt-get install systemd")
    for path in UNITS:
        text = re.sub(r"/srv/shop/\.venv/bin/\w+", sys.executable, path.read_text("utf-8"))
        (tmp_path / path.name).write_text(text.replace("/srv/shop", str(tmp_path)))
    copies = [str(tmp_path / path.name) for path in UNITS]
    found = subprocess.run([program, "verify", *copies], capture_output=True, text=True, check=False, timeout=60)
    about_ours = [line for line in found.stderr.splitlines() if "segment-" in line]
    assert (found.returncode, about_ours) == (0, [])
