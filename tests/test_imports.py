"""Who imports whom: layers downward only, optional packages in one module each, and an import that costs little."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import segment_fallback

PACKAGE = Path(segment_fallback.__file__).parent

LAYERS = [
    {"conf_rules"},
    {"conf", "exceptions", "log", "wording"},
    {
        "ambient",
        "counting",
        "dynamodb_client",
        "names",
        "message",
        "models",
        "outcome",
        "plan_schema",
        "signals",
        "signing",
        "tracing",
    },
    {"buffers"},
    {"delivery"},
    {"plan", "status", "tally"},
    {"client"},
    {"intake", "cdn", "page", "profiles", "events"},
    {"dashboard", "health", "metrics"},
    {"celery_tasks", "django_tasks"},
    {
        "urls",
        "middleware",
        "templatetags",
        "jinja2",
        "tasks",
        "aws",
        "admin",
        "checks",
        "apps",
        "migrations",
        "health_check",
    },
    {"doctor"},
    {"management"},
    {"__init__"},
]
RANKS = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}

SIDEWAYS = {
    ("intake", "page.token"),
    ("intake", "profiles.lookup"),
    ("intake", "profiles.store"),
    ("profiles", "intake"),
    ("profiles", "intake.body"),
    ("profiles", "intake.identity"),
    ("profiles", "intake.privacy"),
    ("profiles", "intake.verify"),
    ("profiles", "intake.visitor"),
    ("apps", "checks"),
}
"""The imports within a layer that DESIGN.md allows."""

ONLY_IN = {
    "boto3": {"dynamodb_client.py"},
    "botocore": {"dynamodb_client.py", "profiles/dynamodb.py"},
    "celery": {"celery_tasks.py", "doctor/workers.py"},
    "health_check": {"health_check.py"},
    "jinja2": {"jinja2.py"},
    "orjson": {"message.py"},
    "prometheus_client": {"metrics.py"},
    "segment": {"client/sdk.py", "delivery/transport.py"},
    "requests": {"cdn/upstream.py", "delivery/transport.py", "doctor/fetch.py", "profiles/api.py"},
    "urllib3": {"cdn/upstream.py", "delivery/transport.py", "doctor/fetch.py", "profiles/api.py"},
}
EVERYWHERE = {"django", "asgiref", *sys.stdlib_module_names}

SOURCES = sorted(file.relative_to(PACKAGE) for file in PACKAGE.rglob("*.py"))
APP = [file for file in SOURCES if file.parts[0] != "testing"]
TESTING = [file for file in SOURCES if file.parts[0] == "testing" and file.name != "captured.py"]
"""But for what collects the app's own messages."""


def imports(source: str, *, run: bool = False) -> Iterator[str]:
    """The dotted names that a source imports, wherever in it: ``from a import b`` is ``a.b``.

    ``run``: without those of ``if TYPE_CHECKING:``, which never run.
    """
    tree = ast.parse(source)
    for_types: set[ast.AST] = set()
    for node in ast.walk(tree):
        if run and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for_types.update(node.body)
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(source: str) -> Iterator[str]:
    """The modules of ours that a source imports, below the package: ``page.token``; ``""`` is the package itself."""
    for name in imports(source):
        package, *path = name.split(".")
        if package != "segment_fallback" or path == ["__version__"]:
            continue
        while path and not PACKAGE.joinpath(*path).is_dir() and not PACKAGE.joinpath(*path).with_suffix(".py").exists():
            path.pop()
        yield ".".join(path)


def upward(file: Path, source: str) -> list[str]:
    """The imports of a module of ours that do not go downward."""
    part = file.with_suffix("").parts[0]
    found = []
    for module in own_imports(source):
        target = module.partition(".")[0] or "__init__"
        allowed = target == part or (part, module) in SIDEWAYS
        if not allowed and RANKS.get(target, len(LAYERS)) >= RANKS[part]:
            found.append(f"{file} imports {module or 'segment_fallback'}")
    return found


def misplaced(file: Path, source: str) -> list[str]:
    """The packages that a module imports and may not."""
    packages = {name.partition(".")[0] for name in imports(source, run=True)} - EVERYWHERE - {"segment_fallback"}
    return [f"{file} imports {package}" for package in packages if file.as_posix() not in ONLY_IN.get(package, ())]


@pytest.mark.parametrize("file", APP, ids=str)
def test_module_imports_only_from_below_itself(file: Path) -> None:
    assert upward(file, (PACKAGE / file).read_text("utf-8")) == []


@pytest.mark.parametrize("file", APP, ids=str)
def test_module_imports_no_package_of_another(file: Path) -> None:
    assert misplaced(file, (PACKAGE / file).read_text("utf-8")) == []


@pytest.mark.parametrize("file", TESTING, ids=str)
def test_testing_imports_nothing_of_the_app(file: Path) -> None:
    found = set(own_imports((PACKAGE / file).read_text("utf-8")))
    assert {module.partition(".")[0] for module in found} <= {"testing"}


@pytest.mark.parametrize(
    ("file", "source", "found"),
    [
        ("conf.py", "from segment_fallback.message import encode", ["conf.py imports message"]),
        ("conf.py", "def f():\n  from segment_fallback import message", ["conf.py imports message"]),
        ("message.py", "import segment_fallback.models", ["message.py imports models"]),
        ("buffers/a.py", "from segment_fallback.delivery.flush import flush", ["buffers/a.py imports delivery.flush"]),
        ("page/tag.py", "from segment_fallback.intake import pixel", ["page/tag.py imports intake.pixel"]),
        ("intake/a.py", "from segment_fallback.page.snippet import render", ["intake/a.py imports page.snippet"]),
        ("intake/a.py", "from segment_fallback.page.token import sign", []),
        ("intake/a.py", "from segment_fallback.intake import verify", []),
        ("intake/a.py", "from segment_fallback import __version__", []),
        ("intake/a.py", "from segment_fallback import track", ["intake/a.py imports segment_fallback"]),
        ("tasks.py", "from segment_fallback.checks import ID", ["tasks.py imports checks"]),
        ("tasks.py", "from segment_fallback.testing import LocalSegment", ["tasks.py imports testing"]),
    ],
)  # fmt: skip
def test_layers_tell_upward_from_downward(file: str, source: str, found: list[str]) -> None:
    assert upward(Path(file), source) == found


@pytest.mark.parametrize("package", ["boto3.session", "celery", "segment.analytics", "requests", "yaml", "pytest"])
def test_packages_tell_another_modules_from_ones_own(package: str) -> None:
    top = package.partition(".")[0]
    assert misplaced(Path("apps.py"), f"import {package}") == [f"apps.py imports {top}"]


def test_installed_app_loads_no_package_that_it_may_not_need() -> None:
    """With the URLs and the checks loaded, as every process of a site has them."""
    code = (
        "import sys, django, segment_fallback; django.setup(); from django.core.checks import run_checks; run_checks();"
        "assert 'segment_fallback.intake.pixel' in sys.modules; print(*sorted(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=PACKAGE.parent,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    heavy = {
        "boto3",
        "botocore",
        "celery",
        "health_check",
        "hypothesis",
        "jinja2",
        "opentelemetry",
        "prometheus_client",
        "pytest",
    }
    heavy |= {"requests", "segment", "storages", "urllib3"}
    assert heavy & set(run.stdout.split()) == set()
