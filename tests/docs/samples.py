"""The code of the documentation, run in a shop of its own: see test_samples.py, which starts pytest with this.

The ``python`` blocks of a page run one after the other in one namespace, as in a project's modules; what they
say of settings must pass ``check``, and what they call ``test_…`` must pass as a test. A block after a comment
``<!-- not run: why -->`` is left alone.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery import Celery
from django.apps import apps
from django.conf import settings as django_settings
from django.contrib.admin import AdminSite
from django.contrib.auth.models import User
from django.core.checks import run_checks
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template import engines
from django.urls import include, path

from segment_fallback.profiles.variations import registry
from segment_fallback.testing import captured_messages
from tests.docs.pages import DOCUMENTS, name

BLOCK = re.compile(r"(?ms)^(?:<!-- not run: ([^\n]+) -->\n+)? *```(\w+)[^\n]*\n(.*?)^ *```$")
OTHERS = {"quickstart.md"}
"""Pages that another test follows to the letter."""
PAGES = [
    page for page in DOCUMENTS if re.search(r"```(python|django)", page.read_text("utf-8")) and page.name not in OTHERS
]
SETTINGS = ("SEGMENT_FALLBACK", "MIDDLEWARE", "STORAGES", "SECURE_PROXY_SSL_HEADER")
OURS = "segment_fallback.middleware.SegmentMiddleware"
OF_TESTS = {"OUTCOME_INTERVAL": 0, "SPOOL": "spool"}

pytestmark = pytest.mark.django_db


@pytest.fixture
def request_of_user(rf: Any) -> HttpRequest:
    request: HttpRequest = rf.get("/")
    request.user = User.objects.create_user("ann")
    return request


@pytest.fixture
def names(request_of_user: HttpRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a page takes for granted in its code: the imports of a project's modules, and the things of a shop."""
    order: Any = apps.get_app_config("shop").get_model("Order")
    monkeypatch.setattr(registry, "_experiments", {})
    monkeypatch.setattr(registry, "by_path", {})
    (tmp_path / "analytics_js").mkdir()
    (tmp_path / "analytics_js/standalone.js").touch()
    for secret in ("SEGMENT_WEBHOOK_SECRET", "SEGMENT_PROFILE_TOKEN"):
        monkeypatch.setenv(secret, "a-secret-of-32-characters-or-more")
    user = request_of_user.user
    return {
        "__name__": "shop.sample",
        "include": include,
        "path": path,
        "render": render,
        "transaction": transaction,
        "settings": django_settings,
        "HttpResponse": HttpResponse,
        "Celery": Celery,
        "app": Celery("shop"),
        "my_site": AdminSite(),
        "BASE_DIR": tmp_path,
        "INSTALLED_APPS": [],
        "MIDDLEWARE": [each for each in django_settings.MIDDLEWARE if each != OURS],
        "STORAGES": dict(django_settings.STORAGES),
        "SEGMENT_FALLBACK": {"WRITE_KEY": "shop-write-key"},
        "urlpatterns": [],
        "request": request_of_user,
        "user": user,
        "Order": order,
        "order": order.objects.create(user=user),
    }


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_code_of_the_page(page: Path, names: dict[str, Any], request: pytest.FixtureRequest) -> None:
    for place, language, code in blocks(page):
        try:
            if language == "python":
                run(place, code, names, request)
            else:
                engines["django"].from_string(code).render({"product": {"sku": "A-1"}}, names["request"])
        except Exception as error:
            raise AssertionError(f"{place}: {error!r}") from error


def blocks(page: Path) -> Iterator[tuple[str, str, str]]:
    text = page.read_text("utf-8")
    for found in BLOCK.finditer(text):
        why, language, code = found.groups()
        if language in ("python", "django") and not why:
            yield f"{name(page)}:{text[: found.start()].count(chr(10)) + 1}", language, textwrap.dedent(code)


def run(place: str, code: str, names: dict[str, Any], request: pytest.FixtureRequest) -> None:
    before = copy.deepcopy({key: names.get(key) for key in SETTINGS})
    exec(compile(code, place, "exec", dont_inherit=True), names)  # noqa: S102 - our own documentation
    if module := re.match(r"# shop/(\w+)\.py", code):
        sys.modules[f"shop.{module[1]}"] = made = ModuleType(f"shop.{module[1]}")
        vars(made).update(names)
    if {key: names.get(key) for key in SETTINGS} != before:
        check(names, request)
    for key in [key for key in names if key.startswith("test_")]:
        call(names.pop(key), request)


def check(names: dict[str, Any], request: pytest.FixtureRequest) -> None:
    """What ``manage.py check`` says of these settings: nothing."""
    settings = request.getfixturevalue("settings")
    for key in SETTINGS:
        if key in names:
            setattr(settings, key, names[key])
    settings.SEGMENT_FALLBACK = {**OF_TESTS, **names["SEGMENT_FALLBACK"]}
    named = [each for each in names["MIDDLEWARE"] if each is not ...]
    settings.MIDDLEWARE = named if OURS in named else [OURS, *named]  # the quickstart has put it there
    ours = [message for message in run_checks() if (message.id or "").startswith("segment_fallback.")]
    assert ours == []


def call(function: Callable[..., None], request: pytest.FixtureRequest) -> None:
    """As pytest would call it; but what one collects, another does not."""
    wanted = inspect.signature(function).parameters
    with captured_messages() if "segment_messages" in wanted else contextlib.nullcontext() as messages:
        given = {"segment_messages": messages}
        function(**{each: given.get(each) or request.getfixturevalue(each) for each in wanted})
