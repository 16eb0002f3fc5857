"""Sites of every kind that Django allows: a fresh project of each, under a real server."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from segment_fallback.testing import LocalSegment
from tests.compat.project import Project, Visitor, outcome

FIRST_PARTY = """
SEGMENT_FALLBACK |= {"FIRST_PARTY": True, "HOLD": 0, "IDENTIFY": True}
"""
MAKE_USER = "from django.contrib.auth import get_user_model\nget_user_model().objects.create(username='ada')"

Make = Callable[..., Project]


def delivered(project: Project, segment: LocalSegment) -> list[tuple[str | None, str | None]]:
    """What a flush brings to Segment: type and name of each message."""
    project.manage("segment_flush")
    return sorted((received.type or "", received.message.get("name") or "") for received in segment.messages)


# below a path


@pytest.mark.parametrize(
    ("settings", "served", "cut"),
    [
        ('FORCE_SCRIPT_NAME = "/below"\n', {}, "/below"),
        ("", {"SCRIPT_NAME": "/below"}, ""),
        ("", {"root_path": "/below"}, "/below"),
    ],
    ids=["FORCE_SCRIPT_NAME", "SCRIPT_NAME of WSGI", "root_path of ASGI"],
)
def test_site_below_a_path(
    project: Make, segment: LocalSegment, settings: str, served: dict[str, str], cut: str
) -> None:
    """Whether the proxy in front cuts the path off, and Django or its server is told, or it leaves the path on."""
    site = project(FIRST_PARTY + settings)
    site.shell(MAKE_USER)
    with site.served(**served) as server:
        visitor = Visitor(server, cut=cut)
        visitor.see("/below/things/")
        assert {visitor.config[key].split("/")[1] for key in ("b", "h", "u", "api", "me")} == {"below"}
        assert visitor.pixel() == visitor.event() == "accepted"
        image = visitor.see("/below/").text.partition('<img src="')[2].partition('"')[0]
        assert outcome(visitor.get(image)) == "accepted"
        assert visitor.get(visitor.config["u"]).status_code == 200
        told = visitor.get(f"{visitor.config['u']}/s").json()["integrations"]["Segment.io"]
        assert told["apiHost"].partition("/")[2] == visitor.config["api"].strip("/")
        assert visitor.who_am_i() is None
        visitor.get("/below/log-in/")
        assert visitor.who_am_i() == "1"
    # One id for the whole host, as analytics.js has it: its cookie is that of "/".
    assert set(visitor.cookies.values()) == {"/"}
    assert delivered(site, segment) == [("page", ""), ("page", "By JavaScript"), ("page", "Things")]
    assert {m.message["properties"]["path"] for m in segment.messages if m.message.get("name") == "Things"} == {
        "/below/things/"
    }


# several hosts

SEVERAL = """
ALLOWED_HOSTS = ["127.0.0.1", "shop.example", ".blog.example"]
SEGMENT_FALLBACK |= {"FIRST_PARTY": True, "HOLD": 0, "SOURCES": {"blog": {"WRITE_KEY": "blog-key"}}}
"""
SITES = """
INSTALLED_APPS += ["django.contrib.sites"]
MIDDLEWARE.append("django.contrib.sites.middleware.CurrentSiteMiddleware")
"""
BY_SITE = """
PAGE = "{% load segment_fallback %}{% segment_snippet request.site.name source=request.site.name %}"
"""


def test_several_hosts_each_with_a_source(project: Make, segment: LocalSegment) -> None:
    site = project(SEVERAL + SITES, BY_SITE)
    site.manage("migrate", "--verbosity", "0")
    site.shell(
        """
        from django.contrib.sites.models import Site
        Site.objects.all().delete()
        Site.objects.create(domain="shop.example", name="default")
        Site.objects.create(domain="blog.example", name="blog")
        """
    )
    with site.served() as server:
        for host in ("shop.example", "blog.example"):
            visitor = Visitor(server, host)
            visitor.see("/")
            assert visitor.pixel() == visitor.event() == "accepted"
    site.manage("segment_flush")
    keys = [(received.write_key, received.message["name"]) for received in segment.messages]
    assert sorted(keys) == [
        ("blog-key", "By JavaScript"),
        ("blog-key", "blog"),
        ("compat-write-key", "By JavaScript"),
        ("compat-write-key", "default"),
    ]


def test_page_of_another_host_of_the_site_may_report_and_a_strangers_may_not(project: Make) -> None:
    site = project(SEVERAL)
    with site.served() as server:
        visitor = Visitor(server, "blog.example")
        visitor.see("/things/")
        own = {"Origin": "http://www.blog.example", "Referer": "http://www.blog.example/things/"}
        assert visitor.event(**own, **{"Sec-Fetch-Site": "same-site"}) == "accepted"
        # Of an own host, but of another domain: what browsers call another site.
        other = {"Origin": "http://shop.example", "Referer": "http://shop.example/things/"}
        assert visitor.event(**other, **{"Sec-Fetch-Site": "cross-site"}) == "cross_site"
        stranger = {"Origin": "http://evil.example", "Referer": "http://evil.example/things/"}
        assert visitor.event(**stranger, **{"Sec-Fetch-Site": "same-site"}) == "host"
        # The pixel is asked of the page's own host, always.
        assert visitor.pixel(**own, **{"Sec-Fetch-Site": "same-site"}) == "cross_site"
        assert visitor.pixel(Referer="http://evil.example/things/") == "host"
        assert visitor.pixel() == "accepted"


# internationalised URLs

LANGUAGES = (
    FIRST_PARTY
    + """
MIDDLEWARE.insert(1, "django.middleware.locale.LocaleMiddleware")
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
LOCALE_PATHS = [BASE_DIR / "locale"]
"""
)
TRANSLATED = """
from django.conf.urls.i18n import i18n_patterns
from django.utils.translation import gettext_lazy as _

pages = [path(_("things/"), page, {"name": "Things"})]
urlpatterns = i18n_patterns(*pages, INSIDE prefix_default_language=False) + [OUTSIDE]
"""
MOUNTS = {
    "outside": {"INSIDE": "", "OUTSIDE": 'path("s/", include("segment_fallback.urls"))'},
    "inside": {"INSIDE": 'path(_("s/"), include("segment_fallback.urls")),', "OUTSIDE": ""},
}


@pytest.mark.parametrize(("mount", "german_mount"), [("outside", "/s/"), ("inside", "/de/spur/")])
def test_internationalised_urls(project: Make, segment: LocalSegment, mount: str, german_mount: str) -> None:
    site = translated(project, mount)
    assert "no issues" in site.manage("check")
    with site.served() as server:
        english, german = Visitor(server), Visitor(server)
        english.see("/things/")
        german.see("/de/dinge/")
        for visitor in (english, german, english):
            assert visitor.pixel() == visitor.event() == "accepted"
            assert visitor.get(visitor.config["u"]).status_code == 200
    assert english.config["b"].startswith("/s/")
    assert german.config["b"].startswith(german_mount)
    assert len(delivered(site, segment)) == 6


def translated(project: Make, mount: str) -> Project:
    urls = TRANSLATED
    for place, text in MOUNTS[mount].items():
        urls = urls.replace(place, text)
    site = project(LANGUAGES, urls)
    (site.directory / "locale/de/LC_MESSAGES").mkdir(parents=True)
    write_catalogue(site)
    return site


def write_catalogue(site: Project) -> None:
    """The translations, as ``compilemessages`` would write them: it needs GNU gettext."""
    texts = {"": "Content-Type: text/plain; charset=UTF-8\n", "s/": "spur/", "things/": "dinge/"}
    tables, content, start = b"", b"", 28 + 16 * len(texts)
    for text in (*texts, *texts.values()):
        tables += struct.pack("<2I", len(text), start + len(content))
        content += text.encode() + b"\0"
    head = struct.pack("<7I", 0x950412DE, 0, len(texts), 28, 28 + 8 * len(texts), 0, start)
    (site.directory / "locale/de/LC_MESSAGES/django.mo").write_bytes(head + tables + content)
