"""README's tables say what the code says. `python -m tests.test_readme` writes them."""

from __future__ import annotations

import ast
import itertools
import re
from pathlib import Path

from segment_fallback.conf import KEYS, default_of
from segment_fallback.outcome import Outcome

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def explanations() -> dict[str, str]:
    """What conf.py says below each setting."""
    tree = ast.parse((ROOT / "segment_fallback/conf.py").read_text())
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Settings").body
    found = {}
    for setting, text in itertools.pairwise(body):
        if isinstance(setting, ast.AnnAssign) and isinstance(setting.target, ast.Name) and isinstance(text, ast.Expr):
            assert isinstance(text.value, ast.Constant)
            found[setting.target.id] = " ".join(str(text.value.value).split()).replace("``", "`").replace("|", "\\|")
    return found


def settings_table() -> str:
    rows = ["| Key | Default | Meaning |", "|---|---|---|"]
    for key in KEYS:
        default = "a `DatabaseBuffer`" if key == "BUFFERS" else f"`{default_of(key)!r}`"
        rows.append(f"| `{key}` | {default} | {explanations()[key]} |")
    return "\n".join(rows)


def outcomes_table() -> str:
    rows = ["| Outcome | Meaning |", "|---|---|"]
    return "\n".join(rows + [f"| `{outcome.value}` | {outcome.explanation} |" for outcome in Outcome])


def section(name: str, text: str) -> re.Match[str]:
    found = re.search(rf"(?s)(<!-- {name}: [^\n]*-->\n)(.*?)(\n<!-- /{name} -->)", text)
    assert found, f"README has no section {name}"
    return found


def test_readme_documents_every_setting() -> None:
    assert section("settings", README.read_text())[2] == settings_table()


def test_readme_documents_every_outcome() -> None:
    assert section("outcomes", README.read_text())[2] == outcomes_table()


if __name__ == "__main__":
    readme = README.read_text()
    for name, table in (("settings", settings_table()), ("outcomes", outcomes_table())):
        match = section(name, readme)
        readme = readme[: match.start(2)] + table + readme[match.end(2) :]
    README.write_text(readme)
