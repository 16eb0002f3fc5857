"""Makes a blocker for Chromium out of a folder of blockers' lists, with the compiler of uBlock Origin Lite."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.page.test_script import node, tool

HERE = Path(__file__).parent
SURROGATES = "web_accessible_resources"
"""Where an extension keeps what lists serve instead of scripts and images; uBlock Origin's has this name beside the
folder of its lists."""

RULES = "rules.json"

MANIFEST: Mapping[str, Any] = {
    "manifest_version": 3,
    "name": "Blockers' lists",
    "version": "1",
    "permissions": ["declarativeNetRequest", "declarativeNetRequestFeedback", "storage"],
    "host_permissions": ["<all_urls>"],
    "background": {"service_worker": "matched.js"},
    "declarative_net_request": {"rule_resources": [{"id": "lists", "enabled": True, "path": RULES}]},
    "web_accessible_resources": [{"resources": [f"{SURROGATES}/*"], "matches": ["<all_urls>"]}],
}


@dataclass(frozen=True)
class Extension:
    """An unpacked extension that applies the lists to every request of the browser."""

    directory: Path
    lists: Sequence[str]
    actions: Mapping[int, str]
    """By the number of each rule: ``block``, ``allow``, ``redirect`` or ``modifyHeaders``."""
    everywhere: Sequence[Sequence[str]]
    """The scriptlets that the lists run on every site, which are not applied: that needs a blocker's own code."""

    def drop(self, number: int) -> None:
        """Leave that rule out."""
        file = self.directory / RULES
        rules = json.loads(file.read_text("utf-8"))
        file.write_text(json.dumps([rule for rule in rules if rule["id"] != number]), "utf-8")


def surrogates(folder: Path) -> Path:
    """Where the surrogates of that folder of lists are; they need not be there."""
    return folder.parent / SURROGATES


def build(folder: Path, directory: Path, resources: Path) -> Extension:
    """Write the extension of that folder of lists into the directory.

    ``resources`` holds the surrogates; a rule whose surrogate is not among them blocks.
    """
    tool("@gorhill/ubo-core")
    rules = directory / RULES
    command = [node(), str(HERE / "compile.mjs"), str(folder), str(resources), str(rules)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    answer = json.loads(done.stdout)
    shutil.copy(HERE / "matched.js", directory)
    if resources.exists():
        shutil.copytree(resources, directory / SURROGATES)
    (directory / "manifest.json").write_text(json.dumps(MANIFEST), "utf-8")
    actions = {rule["id"]: rule["action"]["type"] for rule in json.loads(rules.read_text("utf-8"))}
    return Extension(directory, answer["lists"], actions, answer["everywhere"])
