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

from segment_fallback.page import script
from segment_fallback.page.script import source
from segment_fallback.page.snippet import render
from segment_fallback.page.token import Page

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(script.__file__).parent
NAMES = sorted(file.stem for file in SCRIPTS.glob("*.js") if not file.stem.endswith(".min"))

BUDGET = 900
"""Bytes after gzip by which our snippet may exceed Segment's own: it is in every page."""


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


def tool(path: str) -> Path:
    found = ROOT / "node_modules" / path
    if not found.exists():
        missing(path)
    return found


def test_minified_scripts_are_what_make_script_writes(tmp_path: Path) -> None:
    terser = tool(".bin/terser")
    pinned = json.loads((ROOT / "package.json").read_text("utf-8"))["devDependencies"]["terser"]
    assert json.loads((ROOT / "node_modules/terser/package.json").read_text("utf-8"))["version"] == pinned
    recipe = re.search(r"^TERSER := (.+?)\n\n", (ROOT / "Makefile").read_text("utf-8"), re.M | re.S)
    assert recipe
    arguments = shlex.split(recipe[1].replace("\\\n", "").replace("$$", "$"))
    arguments[arguments.index("--name-cache") + 1] = str(tmp_path / "names.json")
    for name in NAMES:  # in the order of the recipe: what is renamed in one is so in all
        made = tmp_path / f"{name}.min.js"
        command = [node(), str(terser), str(SCRIPTS / f"{name}.js"), *arguments, "--output", str(made)]
        subprocess.run(command, check=True, timeout=60)
        assert made.read_bytes() == (SCRIPTS / made.name).read_bytes(), "run `make script`"


def segments_own(name: str, category: str, properties: dict[str, object]) -> str:
    """The minified snippet of Segment's npm package, for a page call of these arguments."""
    page = {"name": name, "category": category, "properties": properties}
    options = {"apiKey": "tests-write-key", "page": page}
    program = f"process.stdout.write(require({str(tool('@segment/snippet'))!r}).min({json.dumps(options)}))"
    return subprocess.run([node(), "-e", program], check=True, timeout=60, capture_output=True, text=True).stdout


def test_snippet_keeps_to_its_budget() -> None:
    ours = render(Page("/shop/", "Shop", "Pages", {"price": 9.5}), noscript=False)
    theirs = f"<script>{segments_own('Shop', 'Pages', {'price': 9.5})}</script>"
    size = {name: len(gzip.compress(html.encode(), mtime=0)) for name, html in (("ours", ours), ("theirs", theirs))}
    assert size["ours"] <= size["theirs"] + BUDGET


@pytest.mark.parametrize("name", NAMES)
def test_script_is_a_function(name: str) -> None:
    program = f"if (typeof ({source(name)}) != 'function') throw new Error('no function')"
    subprocess.run([node(), "-e", program], check=True, timeout=60)


@pytest.mark.parametrize("name", NAMES)
def test_script_cannot_end_or_hide_its_element(name: str) -> None:
    assert not re.search(r"</script|<!--|<script|\]\]>", source(name), re.I)
    assert source(name).isascii()


@pytest.mark.parametrize("name", NAMES)
def test_script_names_no_endpoint_and_no_host(name: str) -> None:
    assert not re.search(r"https?://|pixel|segment\.(io|com)", source(name))


@pytest.mark.parametrize("name", NAMES)
def test_script_keeps_to_es2015(name: str) -> None:
    command = [node(), str(tool(".bin/acorn")), "--ecma2015", "--silent", str(SCRIPTS / f"{name}.min.js")]
    subprocess.run(command, check=True, timeout=60)
