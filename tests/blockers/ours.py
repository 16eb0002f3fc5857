"""Everything of ours that a blocker can see: each URL of the URLconf and each cookie, for sites of random secrets."""

# ruff: noqa: S311 - random texts, not secrets
from __future__ import annotations

import ast
import base64
import functools
import random
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from django.conf import settings as django_settings
from django.test import override_settings
from django.urls import URLPattern, include, path, reverse

import segment_fallback
from segment_fallback import names, urls
from segment_fallback.cdn import opaque
from segment_fallback.cdn.files import SEGMENTS_CDN, opaque_url
from segment_fallback.conf import get_settings
from segment_fallback.intake.collect import KINDS, METRICS
from segment_fallback.intake.identity import ANONYMOUS_ID_COOKIE
from segment_fallback.page import script
from segment_fallback.page.token import Page, sign
from tests.blockers.engine import Request

PACKAGE = Path(segment_fallback.__file__).parent

MOUNTS = ("s/", "a1/", "", "de/x/")
HOSTS = ("https://shop.example", "https://www.shop.example", "http://localhost:8000")

WORDS = [
    "shoes",
    "sale",
    "öffnen",
    "Überblick",
    "pixel",
    "tracking",
    "analytics",
    "ads",
    "banner",
    "event",
    "collect",
    "価格",
    "utm_source=newsletter&gclid=x",
    "facebook.com/tr?id=1",
    "google-analytics.com",
    "doubleclick.net/pagead",
    "/api/v1/stats",
    "?q=red%20shoes",
    "—",
    "50%",
]
"""Of titles, queries and referrers. Plain, most of them would be blocked."""

BUNDLES = [
    "ajs-destination",
    "auto-track",
    "legacyVideos",
    "queryString",
    "remoteMiddleware",
    "schemaFilter",
    "tsub-middleware",
    "407",
]
DESTINATIONS = [
    "google-analytics",
    "facebook-pixel",
    "hotjar",
    "amplitude-plugins",
    "braze",
    "mixpanel",
    "google-analytics-4-web",
]


def text(dice: random.Random) -> str:
    return " ".join(dice.choices(WORDS, k=dice.randrange(1, 9)))


def token(dice: random.Random) -> str:
    return sign(Page(f"/{text(dice)}/", text(dice), text(dice), {"price": dice.random(), "tags": text(dice)}))


def pixel(dice: random.Random) -> dict[str, str]:
    lines = [str(dice.randrange(10**8)), "Europe/Berlin", "", *(text(dice) for _ in range(4))]
    data = base64.b64encode("\n".join(lines).encode()).decode().replace("/", "_")
    message_id = f"{dice.randrange(10**12, 2 * 10**12)}{dice.getrandbits(96)}"
    return {"message_id": message_id, "data": data, "token": token(dice)}


def hashed(dice: random.Random, stem: str) -> str:
    return f"{stem}.bundle.{dice.getrandbits(80):020x}.js"


def integration(dice: random.Random) -> str:
    """A destination's code as the page asks for it: by analytics.js itself, as we change it, or by settings of ours."""
    pad = names.pads()[0]
    name = opaque.write(dice.choice(DESTINATIONS), pad)
    digest = f"{dice.getrandbits(80):020x}"
    action = opaque_url(
        f"{SEGMENTS_CDN}/next-integrations/actions/{dice.choice(DESTINATIONS)}/{digest}.js", "", pad, ""
    )
    _, _, once, last = action.split("/")
    return dice.choice(
        [
            f"{opaque.write(once, pad)}/{last}",
            f"{once}/{last}",
            f"d/{name}/2.1.0/{name}",
            f"m/{name}/{name}",
            f"{opaque.write(f'integrations/vendor/commons.{digest}.js', pad)}.gz",
        ]
    )


def cdn_integration(dice: random.Random) -> str:
    """The same by an analytics.js that we cannot change, by its option ``obfuscate``."""
    encoded = base64.b64encode(dice.choice(DESTINATIONS).encode()).decode().rstrip("=")
    digest = f"{dice.getrandbits(80):020x}"
    return dice.choice(
        [
            f"actions/{encoded}/{digest}.js",
            f"integrations/{encoded}/2.1.0/{encoded}.dynamic.js.gz",
            f"integrations/vendor/commons.{digest}.js.gz",
        ]
    )


def nothing(dice: random.Random) -> Mapping[str, str]:
    return {}


EXAMPLES: Mapping[str, Callable[[random.Random], Mapping[str, str]]] = {
    "pixel": pixel,
    "noscript": lambda dice: {"token": token(dice)},
    "events": lambda dice: {"kind": dice.choice([kind for kind in (*KINDS, METRICS) if len(kind) == 1])},
    "collect": lambda dice: {"kind": dice.choice([*KINDS, METRICS])},
    "page_script": lambda dice: {"digest": script.digest(get_settings())},
    "script": lambda dice: {"key": names.public_key()},
    "settings": lambda dice: {"key": names.public_key()},
    "bundle": lambda dice: {"file": opaque.write(hashed(dice, dice.choice(BUNDLES)), names.pads()[0])},
    "integration": lambda dice: {"path": integration(dice)},
    "cdn_settings": lambda dice: {"key": names.public_key()},
    "cdn_bundle": lambda dice: {"file": hashed(dice, dice.choice(BUNDLES))},
    "cdn_integration": lambda dice: {"path": cdn_integration(dice)},
}
"""By the name of a URL pattern: its arguments, but for the endpoint's name."""


def patterns(*, of_pages: bool = False) -> Iterator[tuple[str, set[str]]]:
    """Name and arguments of each URL pattern of ours, or only of those whose URLs pages request.

    Raises LookupError for one that has no example.
    """
    for pattern in urls.urlpatterns:
        if of_pages and pattern in urls.NOT_FOR_PAGES:
            continue
        assert isinstance(pattern, URLPattern)
        assert pattern.name
        arguments = set(pattern.pattern.converters) - {"name"}
        if arguments - set(EXAMPLES.get(pattern.name, nothing)(random.Random(0))):
            raise LookupError(f"{str(pattern.pattern)!r}: add an example of {pattern.name!r} to tests/blockers/ours.py")
        yield pattern.name, arguments


@functools.cache
def mounted(mount: str) -> Any:
    """A URLconf with our URLs at the mount."""
    return (path(mount, include("segment_fallback.urls")),)


def site(
    secret: str, mount: str, origin: str, dice: random.Random, *, of_pages: bool = False
) -> tuple[list[Request], list[str]]:
    """What a site of that secret makes browsers request, and the cookies that are its own."""
    with override_settings(SECRET_KEY=secret):
        name = names.endpoint_names()[0]
        page = f"{origin}/{dice.choice(['', 'cart', 'blog/12?page=2'])}"
        requests = []
        for pattern, arguments in patterns(of_pages=of_pages):
            example = EXAMPLES.get(pattern, nothing)(dice)
            kwargs = {"name": name, **{key: example[key] for key in arguments}}
            requests.append(
                Request(origin + reverse(f"segment_fallback:{pattern}", mounted(mount), kwargs=kwargs), page)
            )
        return requests, [name, names.hint_cookie(), names.variation_cookie("home")]


def sites(number: int, seed: int, *, of_pages: bool = False) -> tuple[list[Request], list[str]]:
    """The same of so many sites, each of a secret of its own."""
    dice = random.Random(seed)
    requests: list[Request] = []
    cookies: list[str] = []
    for _ in range(number):
        secret = str(uuid.UUID(int=dice.getrandbits(128)))
        more, names_ = site(secret, dice.choice(MOUNTS), dice.choice(HOSTS), dice, of_pages=of_pages)
        requests += more
        cookies += names_
    return requests, cookies


COOKIES: Mapping[str, str] = {
    "ANONYMOUS_ID_COOKIE": ANONYMOUS_ID_COOKIE,
    "cookie": "derived, by `site`",
    "hint_cookie()": "derived, by `site`",
    "django_settings.SESSION_COOKIE_NAME": django_settings.SESSION_COOKIE_NAME,
    "config.c": "derived, by `site`",
    "config.hint": "derived, by `site`",
    "experiment.cookie": "derived, by `site`",
    "self.cookie": "derived, by `site`",
    "consent['COOKIE']": "the site's own",
    "n": "the site's own",  # the same
}
"""By the expression that names it in our sources: each cookie that we set or read."""


def cookie_expressions() -> set[str]:
    """The expressions that name a cookie in our sources."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        if "testing" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="set_cookie" | "set_signed_cookie" | "get_signed_cookie"), args=[key, *_]
                ):
                    found.add(ast.unparse(key))
                case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="COOKIES")), args=[key, *_]):
                    found.add(ast.unparse(key))
                case ast.Subscript(value=ast.Attribute(attr="COOKIES"), slice=key):
                    found.add(ast.unparse(key))
    for file in PACKAGE.rglob("*.js"):
        if not file.stem.endswith(".min"):
            source = file.read_text("utf-8")
            found.update(re.findall(r"document\.cookie\s*=\s*`?(?:\$\{)?([\w.]+)", source))
            found.update(re.findall(r"document\.cookie\)\.split\(`; \$\{([\w.]+)\}=`", source))
    return found


KNOWN = frozenset({ANONYMOUS_ID_COOKIE})
"""AdGuard removes it on every site. It is analytics.js's own, so we cannot call it anything else."""


def fixed_cookies() -> list[str]:
    """The cookies that every site has under one name."""
    return [name for name in COOKIES.values() if " " not in name]
