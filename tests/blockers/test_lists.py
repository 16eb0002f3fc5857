"""No rule of the blockers' lists, as a browser applies it to a page of any site, matches a URL or a cookie of ours.

The lists are those of Debian's package of uBlock Origin, or of the folder that FILTER_LISTS names.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.urls import URLPattern, path

from segment_fallback import urls
from segment_fallback.checks import LIST_PRONE
from tests.blockers import ours
from tests.blockers.engine import Answer, Request, ask, lists_folder

pytestmark = pytest.mark.slow  # only in that all Pythons have the same lists

SITES = 2_000
SEED = 20

SHOP = "https://shop.example"

BAD = (
    f"{SHOP}/pixel.gif?x=1",
    f"{SHOP}/collect?v=1",
    f"{SHOP}/analytics.js/v1/KEY/analytics.min.js",
    "http://localhost:8000/pixel.gif?x=1",
    "https://cdn.segment.com/analytics.js/v1/KEY/analytics.min.js",
    "https://api.segment.io/v1/p",
)
"""What EasyPrivacy blocks; the first and the last, AdGuard too. Were they not found, the engine would find nothing."""

MOUNTS = (
    "s a1 x k7 shop assets-2 blog api-x e t p analytics analytic analytics-js tracking track tracker trk tr pixel "
    "pixels px beacon beacons collect collector event events eventtracking hit hits hitcount hitcounter stat stats "
    "statistics statscounter statcollector log logs logging metrics telemetry ping views view pageview pageviews "
    "addpageview trackpageview trackview trackvisit trackingpixel pixeltracking clicktrack accesstracking webcounter "
    "webanalytics counter count click clicks ad ads adserve adserver adbanners adsbanner advert advertising banner "
    "banners videoads affiliateads impressions segment piwik matomo plausible snowplow prebid utm rum insights"
)
"""Where somebody might mount our URLs."""


@pytest.fixture(scope="module")
def folder() -> Path:
    return lists_folder()


@pytest.fixture(scope="module")
def answer(folder: Path) -> Answer:
    """What the lists say of everything of ours on many sites, and of what they are known to block."""
    requests, cookies = ours.sites(SITES, SEED)
    assert len(cookies) == len(set(cookies)) == 3 * SITES
    assert len(requests) == SITES * len(urls.urlpatterns)
    controls = [Request(url, "http://localhost:8000/" if "localhost" in url else f"{SHOP}/") for url in BAD]
    return ask(folder, [*requests, *controls], [*cookies, *ours.fixed_cookies()])


def test_lists_are_whole_and_match_what_they_are_known_to_block(answer: Answer) -> None:
    assert answer.rules > 50_000
    assert answer.urls >= (set(BAD) if any("easyprivacy" in name for name in answer.lists) else {BAD[0], BAD[-1]})


def test_no_url_of_any_site_matches(answer: Answer) -> None:
    assert [hit for hit in answer.requests if hit[0] not in BAD] == []


def test_no_cookie_matches_but_that_of_analytics_js(answer: Answer) -> None:
    assert [(name, rule) for name, rule in answer.cookies if name not in ours.KNOWN] == []


def test_urls_have_no_query_and_views_read_none() -> None:
    """So there is no parameter's name that lists could remove or look for."""
    requests, _ = ours.sites(50, SEED)
    assert not [request.url for request in requests if "?" in request.url or "#" in request.url]
    for part in ("intake", "cdn", "page"):
        for file in (ours.PACKAGE / part).rglob("*.py"):
            read = [node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Attribute)]
            assert not {"GET", "QUERY_STRING"} & {node.attr for node in read}, file


WORD = re.compile("[A-Za-z0-9]{2,}")


def fixed_parts(patterns: Iterable[URLPattern]) -> set[str]:
    """What the URLconf itself puts into paths: ``/e/v1/``, ``/settings``."""
    routes = (str(each.pattern).removeprefix("<segment_endpoint_name:name>") for each in patterns)
    return {part for route in routes for part in re.split("<[^>]*>", route)}


def test_no_rule_of_our_own_words_matches_what_pages_request(tmp_path: Path) -> None:
    """Lists could name what is not for pages, as it is the same on every site; nothing that pages need is lost then."""
    parts = {part for part in fixed_parts(urls.NOT_FOR_PAGES) if WORD.search(part)}
    words = {segment for part in parts for segment in part.split("/") if WORD.search(segment)}
    assert words == {"v1", "projects", "settings", "analytics-next", "bundles", "next-integrations"}
    # Between two slashes a rule would be a regular expression.
    rules = [*(f"{part}*" for part in parts), *(f"/{word}{end}" for word in words for end in ("/*", "^", "|"))]
    (tmp_path / "list.txt").write_text("\n".join(["! Title: a list", *rules]), "utf-8")
    everything, _ = ours.sites(100, SEED)
    of_pages, _ = ours.sites(100, SEED, of_pages=True)
    answer = ask(tmp_path, [*everything, *of_pages])
    assert len(answer.urls) == 100 * len(urls.NOT_FOR_PAGES)
    assert not answer.urls & {request.url for request in of_pages}


def test_what_pages_request_has_only_single_letters_in_common() -> None:
    """Below the endpoint's name; so there is no text that a list could name for every site."""
    of_pages = [each for each in urls.urlpatterns if each not in urls.NOT_FOR_PAGES]
    assert not [part for part in fixed_parts(of_pages) if WORD.search(part)]
    requests, cookies = ours.sites(100, SEED, of_pages=True)
    assert len(requests) == 100 * len(of_pages)
    seen: dict[str, str] = {}
    for request in requests:
        above, name, *below = re.split(f"({'|'.join(cookies)})/", urlsplit(request.url).path, maxsplit=1)
        for segment in below[0].split("/"):
            if WORD.search(segment):
                assert seen.setdefault(segment, name) == name, f"{request.url} has {segment} of another site, {above}"


def test_url_pattern_without_an_example_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    new = path("<segment_endpoint_name:name>/z/<slug:thing>", lambda request: None, name="new")  # type: ignore[arg-type, return-value]
    monkeypatch.setattr(urls, "urlpatterns", [*urls.urlpatterns, new])
    with pytest.raises(LookupError, match=r"z/<slug:thing>': add an example of 'new' to tests/blockers/ours\.py"):
        list(ours.patterns())


def test_every_cookie_in_our_sources_has_an_example() -> None:
    unknown = ours.cookie_expressions() - set(ours.COOKIES)
    assert not unknown, f"add an example of the cookies {unknown} to COOKIES in tests/blockers/ours.py"
    assert set(ours.COOKIES) <= ours.cookie_expressions(), "COOKIES in tests/blockers/ours.py names one that is gone"


RULES = [
    "$cookie=ajs_anonymous_id",
    "$domain=other.example,cookie=session",
    "$third-party,cookie=session",
    "||other.example^$cookie=session",
    "$cookie=/^k7p.jt$/",
    "##+js(remove-cookie, hint_, when, scroll)",
    "#%#//scriptlet('remove-cookie', 'other')",
    "other.example##+js(remove-cookie, session)",
]


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("ajs_anonymous_id", RULES[:1]),
        ("session", []),
        ("k7pxjt", RULES[4:5]),
        ("my_hint_", RULES[5:6]),
        ("another", RULES[6:7]),
        ("ajs", []),
    ],
)
def test_cookie_rules_are_read(tmp_path: Path, name: str, rules: Sequence[str]) -> None:
    (tmp_path / "list.txt").write_text("\n".join(["! Title: a list", *RULES]), "utf-8")
    assert ask(tmp_path, cookies=[name]).cookies == [(name, rule) for rule in rules]


def test_removed_query_parameter_counts_as_a_match(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("$removeparam=gclid\n", "utf-8")
    assert ask(tmp_path, [Request(f"{SHOP}/s/x?gclid=1"), Request(f"{SHOP}/s/x")]).urls == {f"{SHOP}/s/x?gclid=1"}


def test_check_warns_of_each_mount_that_lists_match(folder: Path) -> None:
    """W002, wherever the lists match a URL of ours below a mount or under an ENDPOINT_NAME of that name."""
    [pixel, *_], _ = ours.site("secret", "s/", SHOP, random.Random(SEED))  # noqa: S311
    rest = pixel.url.removeprefix(f"{SHOP}/s/")
    name, _, below = rest.partition("/")
    urls_of = {word: (f"{SHOP}/{word}/{rest}", f"{SHOP}/s/{word}/{below}") for word in MOUNTS.split()}
    blocked = ask(folder, [Request(url) for pair in urls_of.values() for url in pair]).urls
    named = {word for word, pair in urls_of.items() if blocked & set(pair)}
    assert len(named) > 5
    assert not [word for word in named if not LIST_PRONE.search(f"/{word}/{name}")]
    assert not LIST_PRONE.search(f"/s/{name}/")
