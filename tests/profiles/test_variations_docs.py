"""What docs/how-to/personalisation.md says works as it says."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import include, path

from segment_fallback.conf import compile_settings
from segment_fallback.profiles.edge import EDGES
from segment_fallback.profiles.lookup import profile_of
from segment_fallback.profiles.store import Profile
from segment_fallback.profiles.variations import registry
from tests.edge.servers import DOCS

pytestmark = pytest.mark.django_db

GUIDE = (Path(__file__).parents[2] / "docs/how-to/personalisation.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)


def home(request: HttpRequest) -> HttpResponse:
    return HttpResponse("home")


urlpatterns = [path("s/", include("segment_fallback.urls")), path("", home), path("offers/gold/", home)]


@pytest.fixture
def declared(settings: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the guide's code for a view and for a path declares; its names."""
    settings.ROOT_URLCONF = __name__
    monkeypatch.setattr(registry, "_experiments", {})
    monkeypatch.setattr(registry, "by_path", {})
    names: dict[str, Any] = {"render": lambda request, template: HttpResponse(request.segment.variation)}
    view, paths = (block for block in BLOCKS if "import variation\n" in block)
    exec(view, names)  # noqa: S102 - our own documentation
    registry._experiments.clear()
    exec(paths.replace("from shop.views import by_plan\n", ""), names)  # noqa: S102
    return names


def test_settings_of_the_guide_are_right() -> None:
    [block] = [block for block in BLOCKS if '"PROFILES"' in block]
    values: dict[str, Any] = {}
    exec(block, values)  # noqa: S102 - our own documentation
    assert compile_settings(values["SEGMENT_FALLBACK"])[1] == []


def test_code_of_the_guide_declares_what_it_says(declared: dict[str, Any]) -> None:
    assert declared["by_plan"](Profile({"plan": "gold"})) == "gold"
    assert declared["by_plan"](Profile({})) == "regular"
    assert {path: experiment.id for path, experiment in registry.by_path.items()} == {"/": "home", "/offers/": "offers"}
    assert Client().get("/").content == b"home"
    assert registry.by_path["/offers/"].paths["gold"] == "/offers/gold/"


def test_fragment_of_the_guide_is_kept_by_no_cache() -> None:
    [block] = [block for block in BLOCKS if "def greeting" in block]
    names: dict[str, Any] = {"render": lambda request, template, context: HttpResponse(str(context))}
    exec(block, names)  # noqa: S102 - our own documentation
    assert names["profile_of"] is profile_of
    response = names["greeting"](HttpRequest())
    assert "no-store" in response["Cache-Control"]
    assert response.content == b"{'name': None}"


def test_commands_of_the_guide_run(declared: dict[str, Any]) -> None:
    [block] = re.findall(r"```console\n(.*?)```", GUIDE, re.DOTALL)
    commands = re.findall(r"manage\.py segment_variations(.*?)(?:#.*)?$", block, re.MULTILINE)
    assert len(commands) == 2
    for arguments in commands:
        out = io.StringIO()
        call_command("segment_variations", *arguments.replace("'", "").split(), stdout=out)
        assert "home" in out.getvalue()


def test_guide_names_every_edge_and_its_file() -> None:
    for edge in EDGES:
        assert f"`--{edge}`" in GUIDE
    for link in re.findall(r"\]\((edge/[^)]+)\)", GUIDE):
        assert (DOCS / link.removeprefix("edge/")).exists()
