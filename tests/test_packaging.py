"""What is published, and how: the same versions wherever they are written, and a workflow that GitHub understands."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import metadata, requires
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import segment_fallback

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
USERS_EXTRAS = ["", "celery", "demo", "dynamodb", "health", "jinja2", "opentelemetry", "orjson", "prometheus", "s3"]


@pytest.fixture(scope="module")
def workflow() -> Any:
    return yaml.safe_load(WORKFLOW.read_text())


def required() -> dict[str, Requirement]:
    """What users of the app, or of one of its extras, must have, by name."""
    found = [Requirement(text) for text in requires("django-segment-fallback") or []]
    chosen = [
        each for each in found if each.marker is None or any(each.marker.evaluate({"extra": e}) for e in USERS_EXTRAS)
    ]
    return {each.name: each for each in chosen if each.name != "django-segment-fallback"}


def test_the_oldest_versions_that_are_tested_are_the_oldest_that_are_allowed() -> None:
    lines = (ROOT / "tests" / "lowest.txt").read_text().splitlines()
    pins = {pin.name: pin for pin in map(Requirement, (line for line in lines if not line.startswith("#")))}
    allowed = {name: str(each.specifier) for name, each in required().items()}
    assert {name: str(pin.specifier).replace("==", ">=") for name, pin in pins.items()} == allowed


def test_the_app_needs_only_django_and_segments_library() -> None:
    alone = [Requirement(text) for text in requires("django-segment-fallback") or [] if "extra ==" not in text]
    assert {each.name for each in alone} == {"django", "segment-analytics-python"}


def test_tox_the_workflow_and_the_classifiers_name_the_same_versions(workflow: Any) -> None:
    classifiers = metadata("django-segment-fallback").get_all("Classifier") or []
    pythons = {c.rpartition(" ")[2] for c in classifiers if re.match(r"Programming Language :: Python :: 3\.\d", c)}
    djangos = {
        c.rpartition(" ")[2].replace(".", "") for c in classifiers if re.match(r"Framework :: Django :: \d\.\d", c)
    }
    matrix = workflow["jobs"]["tox"]["strategy"]["matrix"]
    assert (set(matrix["python"]), set(matrix["django"])) == (pythons, djangos)
    excluded = {(pair["python"], pair["django"]) for pair in matrix["exclude"]}
    pairs = {(python, django) for python in pythons for django in djangos} - excluded
    listed = subprocess.run(
        [sys.executable, "-m", "tox", "list", "--no-desc"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert set(listed) == {f"py{python.replace('.', '')}-django{django}" for python, django in pairs} | {"lowest"}


def test_the_workflow_is_one(workflow: Any) -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(WORKFLOW)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout
    jobs = workflow["jobs"]
    assert set(jobs["publish"]["needs"]) == set(jobs) - {"publish"}, "nothing is published that was not tested"
    makefile = (ROOT / "Makefile").read_text()
    for job in jobs.values():
        for step in job["steps"]:
            command, _, targets = step.get("run", "").partition(" ")
            if command == "make":
                for target in targets.split():
                    assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"
            elif command.startswith(".ci/"):
                assert (ROOT / command).stat().st_mode & 0o100, f"{command} is run as a program"


def test_the_version_has_its_entry_in_the_changelog() -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest[1] == segment_fallback.__version__ == metadata("django-segment-fallback")["Version"]


def test_every_target_of_the_makefile_says_what_it_does() -> None:
    makefile = (ROOT / "Makefile").read_text()
    [phony] = re.findall(r"^\.PHONY: (.+)", makefile, re.MULTILINE)
    assert set(phony.split()) == set(re.findall(r"^([a-z]+):.*##", makefile, re.MULTILINE))
