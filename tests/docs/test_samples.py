"""The code and the commands of the documentation work."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class
from django.core.management.base import CommandError

from tests.docs.pages import DOCUMENTS, FENCE, ROOT, name

COMMANDS = {"python", "pip", "make", "django-admin", "celery", "redis-server", "docker", "npm", "mkdir", "cp", "source"}
LANGUAGES = {"python", "django", "console", "json", "text", "html", "js", "sql", "yaml", "", "toctree"}
INLINE = re.compile(r"`(?:python )?manage\.py (segment_\w+)([^`]*)`")


def test_code_of_every_page_runs() -> None:
    """In a process of its own: what pages register (handlers, a plan, receivers) is for ever."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--ds=shop.settings"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests/docs/site")}
    done = subprocess.run(
        [*command, str(Path(__file__).with_name("samples.py"))],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def commands(document: Path) -> Iterator[str]:
    """Each command of its console blocks, without comment, redirection and what stands before ``&&``."""
    for _, language, code in FENCE.findall(document.read_text("utf-8")):
        if language == "console":
            for line in re.findall(r"(?m)^ *\$ (.+)$", code):
                yield from re.split(r" && ", re.split(r"\s+#| > ", line)[0])


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_commands_exist(document: Path) -> None:
    for command in commands(document):
        words = shlex.split(command)
        assert words[0] in COMMANDS, command
        match words:
            case ["python", "manage.py", subcommand, *arguments]:
                assert subcommand in get_commands(), command
                parse(subcommand, arguments)
            case ["python", "-m", module, *_]:
                assert importlib.util.find_spec(module), command
            case ["make", target, *_]:
                assert re.search(rf"(?m)^{target}:", (ROOT / "Makefile").read_text("utf-8")), command
            case ["pip", "install", *packages]:
                assert extras(packages) <= own_extras(), command


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_commands_in_the_text_exist(document: Path) -> None:
    for subcommand, rest in INLINE.findall(document.read_text("utf-8")):
        options = {option for action in parser(subcommand)._actions for option in action.option_strings}
        assert set(re.findall(r"--[\w-]+", rest)) <= options, f"{subcommand}{rest}"


def parser(subcommand: str):  # type: ignore[no-untyped-def]
    assert get_commands().get(subcommand) == "segment_fallback", f"no command {subcommand}"
    return load_command_class("segment_fallback", subcommand).create_parser("manage.py", subcommand)


def parse(subcommand: str, arguments: list[str]) -> None:
    if subcommand.startswith("segment_"):
        try:
            parser(subcommand).parse_args(arguments)
        except CommandError as error:
            pytest.fail(f"manage.py {subcommand} {shlex.join(arguments)}: {error}")


def extras(packages: list[str]) -> set[str]:
    ours = (re.fullmatch(r"django-segment-fallback\[(.+)\]", package) for package in packages)
    return {extra for found in ours if found for extra in found[1].split(",")}


def own_extras() -> set[str]:
    optional = (ROOT / "pyproject.toml").read_text("utf-8").partition("[project.optional-dependencies]")[2]
    return set(re.findall(r"(?m)^([\w-]+) = \[", optional.partition("\n[")[0]))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_blocks_are_of_a_language_that_is_looked_at(document: Path) -> None:
    for _, language, code in FENCE.findall(document.read_text("utf-8")):
        assert language in LANGUAGES, f"{name(document)}: {language}"
        if language == "json" and "…" not in code:
            for text in [code] if code.startswith("{\n") else code.splitlines():
                json.loads(text)
