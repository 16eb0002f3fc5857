"""docs/reference has all that there is, and nothing else. ``python -m tests.docs`` writes it from the code."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from django.conf import global_settings
from django.utils.module_loading import import_string

from segment_fallback import conf, metrics
from segment_fallback.templatetags import segment_fallback as tags
from tests.docs.pages import DOCS, DOCUMENTS, FENCE, name, section
from tests.docs.public import BY_HAND, PUBLIC
from tests.docs.reference import PACKAGE, WRITTEN, checks_in_code

NO_SETTINGS = {
    *("DEBUG", "POST", "HEAD", "OPTIONS", "DELETE", "PATH", "KNOWN", "ERROR", "WARNING", "INFO", "LIST", "INSERT"),
    *("BACKEND", "WRITE_KEY", "COOKIE", "VALUE", "CONTAINS", "CALLBACK", "SPACE", "TOKEN", "HOST", "TIMEOUT", "RATE"),
    *("REFRESH", "PROMETHEUS_MULTIPROC_DIR", "HTTPS_PROXY", "SUPPRESS_WITH_DELETE", "BASE_DIR", "SEGMENT_FALLBACK"),
    *("SPOOL", "ARCHIVE", "UUID", "DJANGO_SETTINGS_MODULE"),
}
"""Words in capitals that are no key of SEGMENT_FALLBACK and no setting of Django's: keys of dicts, methods, types."""
NO_PATHS = {
    *("segment_fallback.view_dashboard", "segment_fallback.manage_dead_letters"),  # permissions
    *("segment_fallback.put", "segment_fallback.send"),  # spans
}
OTHERS = re.compile(r"SEGMENT_\w+|EXAMPLE_\w+|ANALYTICAL_\w+|\w+_PROPERTY_ID|\w+_API_TOKEN")
"""Settings of apps that a guide leads away from, and variables of the example."""


@pytest.mark.parametrize("title", WRITTEN)
def test_page_says_what_the_code_says(title: str) -> None:
    page, make = WRITTEN[title]
    found = section(title, (DOCS / "reference" / page).read_text("utf-8"))[2]
    assert found == make(), "python -m tests.docs writes it"


def test_every_check_is_documented_once() -> None:
    texts = "".join(file.read_text("utf-8") for file in PACKAGE.rglob("*.py"))
    used = set(re.findall(r'(?:\{ID\}|segment_fallback\.)([EW]\d{3})"', texts))
    documented = [number for number, *_ in checks_in_code()]
    assert used == set(documented)
    assert all(level and text and hint for _, level, text, hint in checks_in_code())


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_checks_that_are_named_exist(document: Path) -> None:
    named = set(re.findall(r"\b([EW]0\d\d)\b", document.read_text("utf-8")))
    assert named <= {number for number, *_ in checks_in_code()}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_settings_that_are_named_exist(document: Path) -> None:
    words = set(re.findall(r"`([A-Z][A-Z_]{3,})`", document.read_text("utf-8")))
    unknown = words - set(conf.KEYS) - set(dir(global_settings)) - NO_SETTINGS
    assert {word for word in unknown if not OTHERS.fullmatch(word)} == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_metrics_that_are_named_exist(document: Path) -> None:
    named = set(re.findall(r"\bsegment_fallback_(\w+?)(?:_total)?[`\[{ ]", document.read_text("utf-8")))
    assert named <= {*metrics.GAUGES, *metrics.COUNTERS}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_tags_that_are_named_exist(document: Path) -> None:
    assert set(re.findall(r"{% (segment_\w+)", document.read_text("utf-8"))) <= set(tags.register.tags)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_what_pages_import_is_public(document: Path) -> None:
    public = {**PUBLIC, **BY_HAND}
    code = "".join(code for _, language, code in FENCE.findall(document.read_text("utf-8")) if language == "python")
    for module, imported in re.findall(r"(?m)^ *from (segment_fallback[\w.]*) import ([\w, ]+)", code):
        for each in re.findall(r"\w+", imported):
            assert each in public.get(module, []) or f"{module}.{each}" in public, f"{module}.{each}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_paths_into_the_package_lead_somewhere(document: Path) -> None:
    for path in re.findall(r"`(segment_fallback(?:\.\w+)+)", document.read_text("utf-8")):
        number = re.fullmatch(r"segment_fallback\.[EW]\d{3}", path)
        assert number or path.rpartition(".")[0] in BY_HAND or path in NO_PATHS or leads_somewhere(path), path


def leads_somewhere(path: str) -> bool:
    try:
        importlib.import_module(path)
    except ImportError:
        try:
            import_string(path)
        except ImportError:
            return False
    return True


def test_what_only_some_sites_can_import_is_on_the_page() -> None:
    page = (DOCS / "reference/python-api.md").read_text("utf-8").partition("<!-- /api -->")[2]
    for module, names in BY_HAND.items():
        source = (PACKAGE.parent / f"{module.replace('.', '/')}.py").read_text("utf-8")
        for each in names:
            assert f"`{module}.{each}`" in page
            assert re.search(rf"(?m)^(?:class |def |){each}\b", source), f"{module}.{each}"


def test_modules_with_a_list_of_what_is_public_are_documented() -> None:
    listed = {
        ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for file in PACKAGE.rglob("__init__.py")
        if "__all__ = [" in file.read_text("utf-8")
    }
    assert listed - {"segment_fallback.client"} <= set(PUBLIC)  # client's names are segment_fallback's own
