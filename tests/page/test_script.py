"""The page's script as it is shipped: made from its source by the pinned terser, and small."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

from segment_fallback.page import snippet
from segment_fallback.page.snippet import script_source

ROOT = Path(__file__).parents[2]
STATIC = Path(snippet.__file__).parents[1] / "static/segment_fallback"
MINIFIED = STATIC / "snippet.min.js"

BUDGET = 1_700
"""Bytes of the script after gzip: it is in every page."""


def missing(tool: str) -> NoReturn:
    """Skip on a developer's machine; in CI nothing is skipped."""
    if os.environ.get("CI"):
        pytest.fail(f"{tool} is missing, and CI is set: run `make node_modules/.installed`")
    pytest.skip(f"{tool} is missing: `make node_modules/.installed` brings what this test runs")


def node() -> str:
    # A wheel brings node into the virtual environment where the machine has none.
    found = shutil.which("node") or shutil.which("node", path=str(ROOT / ".venv/bin"))
    if found is None:
        missing("node")
    return found


def test_minified_script_is_what_make_script_writes(tmp_path: Path) -> None:
    terser = ROOT / "node_modules/.bin/terser"
    if not terser.exists():
        missing("terser")
    pinned = json.loads((ROOT / "package.json").read_text("utf-8"))["devDependencies"]["terser"]
    installed = json.loads((ROOT / "node_modules/terser/package.json").read_text("utf-8"))["version"]
    assert installed == pinned
    recipe = re.search(r"^\tnode_modules/\.bin/terser (.+) --output .+$", (ROOT / "Makefile").read_text("utf-8"), re.M)
    assert recipe
    arguments = shlex.split(recipe[1].replace("$(SNIPPET)", str(STATIC / "snippet")))
    made = tmp_path / "snippet.min.js"
    subprocess.run([node(), str(terser), *arguments, "--output", str(made)], check=True, timeout=60)
    assert made.read_bytes() == MINIFIED.read_bytes(), "run `make script`"


def test_minified_script_keeps_to_its_budget() -> None:
    assert len(gzip.compress(MINIFIED.read_bytes(), mtime=0)) <= BUDGET


def test_script_source_is_a_function_without_its_call() -> None:
    assert MINIFIED.read_text("utf-8").strip() == script_source() + "(CONFIG);"
    assert re.match(r"\(\w+=>\{", script_source())


def test_script_source_cannot_end_or_hide_its_element() -> None:
    assert not re.search(r"</script|<!--|<script|\]\]>", script_source(), re.I)
    assert script_source().isascii()


@pytest.mark.parametrize("file", [MINIFIED, STATIC / "snippet.js"], ids=lambda file: file.name)
def test_script_is_valid(file: Path) -> None:
    subprocess.run([node(), "--check", str(file)], check=True, timeout=60)


def test_script_names_no_endpoint_and_no_host() -> None:
    assert not re.search(r"https?://|pixel|segment\.(io|com)", script_source())
