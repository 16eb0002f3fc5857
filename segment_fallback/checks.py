"""What ``manage.py check`` says of a site's set-up. Each finding has an id and a hint."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004
from django.core.exceptions import ImproperlyConfigured
from django.urls import NoReverseMatch
from django.utils.module_loading import import_string

from segment_fallback.buffers import make_buffer
from segment_fallback.cdn.checks import check_first_party
from segment_fallback.conf import KEYS, Problem, compile_settings, get_settings
from segment_fallback.intake.checks import check_cookies
from segment_fallback.names import endpoint_names
from segment_fallback.page.snippet import base
from segment_fallback.profiles.checks import check_variations
from segment_fallback.profiles.handler import make_store

ID = "segment_fallback."

LIST_PRONE = re.compile(
    r"(?:^|[/._-])((?:access|add|affiliate|video|web)*(?:ad(?:s|serve)?|advert\w*|analytics?|banners?|beacons?|"
    r"clicks?|collect(?:or)?|count(?:er)?|events?|hits?|impressions?|logs?|matomo|metrics?|pageviews?|pings?|piwik|"
    r"pixels?|plausible|prebid|segment|snowplow|stats?|telemetry|track(?:er|ing)?|utm|views?|visits?)+)(?=[/._-]|$)",
    re.IGNORECASE,
)
"""Path segments that generic rules of EasyPrivacy, uBlock and AdGuard are made of."""

MIDDLEWARE = "segment_fallback.middleware.SegmentMiddleware"


@register()
def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Each key of SEGMENT_FALLBACK: known, of its type, in its range."""
    raw = getattr(django_settings, "SEGMENT_FALLBACK", {})
    settings, problems = compile_settings(raw)
    switched_off = isinstance(raw, dict) and raw.get("WRITE_KEY") == ""
    messages: list[CheckMessage] = [
        _explain(problem) for problem in problems if not (problem.kind == "missing" and switched_off)
    ]
    if switched_off and not settings.sources:
        messages.append(
            Warning(
                "SEGMENT_FALLBACK['WRITE_KEY'] is empty: pages carry no snippet, and nothing is tracked.",
                hint="Fine for development and tests. On a live site, write the write key of your Segment source.",
                id=f"{ID}W001",
            )
        )
    return messages


def _explain(problem: Problem) -> CheckMessage:
    if problem.kind == "missing":
        hint = "Copy it from your source's settings in Segment; write '' to switch tracking off."
        return Error(f"{problem.explanation}.", hint=hint, id=f"{ID}E001")
    if problem.kind == "unknown":
        near = difflib.get_close_matches(problem.key.upper(), KEYS, 1)
        hint = f"Did you mean {near[0]!r}?" if near else f"The keys are {', '.join(KEYS)}."
        return Error(f"{problem.explanation}.", hint=hint, id=f"{ID}E002")
    hint = {
        "SEGMENT_FALLBACK": "Until then nothing is tracked.",
        "WRITE_KEY": "Until then nothing is tracked, except by SOURCES; write '' to switch tracking off.",
        "CONSENT": "Until then nobody has consented.",
    }.get(problem.key, "Until then its default is used.")
    return Error(f"{problem.explanation}.", hint=hint, id=f"{ID}E003" if problem.kind == "type" else f"{ID}E004")


@register()
def check_buffers(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Each buffer can be made, and finds its own set-up in order. Connects to nothing."""
    messages: list[CheckMessage] = []
    for alias, config in get_settings().BUFFERS.items():
        try:
            messages += make_buffer(alias, dict(config)).check()
        except (ImproperlyConfigured, ImportError) as error:
            hint = (
                "BACKEND is a dotted path, such as 'segment_fallback.buffers.database.DatabaseBuffer' or "
                "'segment_fallback.buffers.dynamodb.DynamoDBBuffer'; OPTIONS are its arguments."
            )
            messages.append(Error(f"{error}.", hint=hint, id=f"{ID}E005"))
    return messages


@register()
def check_profiles(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """The store of profiles can be made and finds its own set-up in order, and is there where it is needed."""
    settings = get_settings()
    if settings.PROFILES:
        try:
            return make_store(settings.PROFILES).check()
        except (ImproperlyConfigured, ImportError) as error:
            hint = (
                "BACKEND is a dotted path, such as 'segment_fallback.profiles.database.DatabaseProfiles', "
                "'….dynamodb.DynamoDBProfiles' or '….cache.CacheProfiles'; OPTIONS are its arguments."
            )
            return [Error(f"{error}.", hint=hint, id=f"{ID}E013")]
    needing = [key for key in ("PROFILE_SECRETS", "PROFILE_API", "VARIATIONS") if getattr(settings, key)]
    if not needing:
        return []
    hint = "Set PROFILES to {'BACKEND': 'segment_fallback.profiles.database.DatabaseProfiles'}."
    return [Warning(f"{', '.join(needing)} without PROFILES: nothing happens.", hint=hint, id=f"{ID}W016")]


register(check_variations)


@register()
def check_storages(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """ARCHIVE and SPOOL name storages. Connects to nothing."""
    errors: list[CheckMessage] = []
    for key, folder in (("ARCHIVE", "True"), ("SPOOL", "None")):
        alias = getattr(get_settings(), key)
        if isinstance(alias, str) and alias not in django_settings.STORAGES:
            there = ", ".join(map(repr, django_settings.STORAGES))
            hint = f"STORAGES has {there}; {folder} is a folder of this machine."
            text = f"SEGMENT_FALLBACK[{key!r}]: STORAGES has no alias {alias!r}."
            errors.append(Error(text, hint=hint, id=f"{ID}E011"))
    return errors


@register()
def check_user_id(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """USER_ID and TRAITS name functions."""
    errors: list[CheckMessage] = []
    for key, result in (("USER_ID", "a text"), ("TRAITS", "a dict")):
        path = getattr(get_settings(), key)
        try:
            found = path is None or callable(import_string(path))
        except ImportError:
            found = False
        if not found:
            hint = f"Write the dotted path of a function that takes a user and returns {result}."
            errors.append(Error(f"SEGMENT_FALLBACK[{key!r}]: {path!r} is not a function.", hint=hint, id=f"{ID}E008"))
    return errors


@register()
def check_urls(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Our URLs are mounted, and at a path that no blockers' list names."""
    try:
        if not getattr(django_settings, "ROOT_URLCONF", None):
            raise NoReverseMatch
        url = base(endpoint_names()[0])
    except NoReverseMatch:
        hint = "Add path('s/', include('segment_fallback.urls')) to the urlpatterns of your ROOT_URLCONF."
        return [Error("The URLs of segment_fallback are not mounted.", hint=hint, id=f"{ID}E006")]
    word = LIST_PRONE.search(url)
    if not word:
        return []
    hint = "Mount them at a short path that means nothing, such as 's/', or choose another ENDPOINT_NAME."
    text = f"The path of our endpoints, {url!r}, has the segment {word[1]!r}, which blockers' lists look for."
    return [Warning(text, hint=hint, id=f"{ID}W002")]


@register()
def check_middleware(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Where SegmentMiddleware is used, it is used once, and nothing dear runs before it."""
    installed = list(django_settings.MIDDLEWARE)
    if MIDDLEWARE not in installed:
        return []
    if installed.count(MIDDLEWARE) > 1:
        hint = "Keep the first of them."
        return [Warning("MIDDLEWARE has SegmentMiddleware more than once.", hint=hint, id=f"{ID}W003")]
    before = installed[: installed.index(MIDDLEWARE)]
    dear = [path for path in before if path.rpartition(".")[2] not in ("SecurityMiddleware", "GZipMiddleware")]
    if not dear:
        return []
    hint = f"Move {MIDDLEWARE!r} to the first place: it answers our own endpoints before the others do their work."
    text = f"MIDDLEWARE has {dear[0]!r} before SegmentMiddleware."
    return [Warning(text, hint=hint, id=f"{ID}W004")]


@register()
def check_needed_middleware(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Where a setting is the middleware's to fulfil, the middleware is there."""
    settings = get_settings()
    needing = [key for key in ("IDENTIFY", "RESET_AT_LOGOUT", "INJECT", "VARIATIONS") if getattr(settings, key)]
    if not needing or MIDDLEWARE in django_settings.MIDDLEWARE:
        return []
    hint = f"Add {MIDDLEWARE!r} to MIDDLEWARE, in the first place."
    return [Warning(f"{', '.join(needing)} without SegmentMiddleware: nothing happens.", hint=hint, id=f"{ID}W011")]


@register()
def check_sessions(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """No visitor's session is on an answer that caches keep for everybody."""
    settings, installed = get_settings(), list(django_settings.MIDDLEWARE)
    public = [key for key in ("FIRST_PARTY", "EXTERNAL_SCRIPT") if getattr(settings, key)]
    before = installed[: installed.index(MIDDLEWARE)] if MIDDLEWARE in installed else installed
    sessions = any(path.endswith(".SessionMiddleware") for path in before)
    if not public or not sessions or not django_settings.SESSION_SAVE_EVERY_REQUEST:
        return []
    hint = f"Add {MIDDLEWARE!r} to MIDDLEWARE, in the first place: it answers before the sessions' does."
    text = (
        f"SESSION_SAVE_EVERY_REQUEST with {', '.join(public)}: visitors' session cookies are on files that caches keep."
    )
    return [Warning(text, hint=hint, id=f"{ID}W020")]


register(check_cookies)


SEGMENT_HOSTS = {
    "api.segment.io": "https://api.segment.io",
    "events.eu1.segmentapis.com": "https://events.eu1.segmentapis.com",
}
"""Where Segment takes events, and nowhere else: https://segment.com/docs/guides/regional-segment/"""

_SEGMENTS_OWN = re.compile(r"(?:^|\.)segment(?:apis)?\.(?:com|io)$")


register(check_first_party)


@register()
def check_collect(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Nothing that needs the buffer is asked of a site that forwards."""
    settings = get_settings()
    if settings.COLLECT == "buffer":
        return []
    messages: list[CheckMessage] = []
    if settings.EAGER:
        hint = "Set EAGER to False, or COLLECT to 'buffer'."
        text = (
            "EAGER with COLLECT 'forward': of each view Segment keeps the pixel, which comes first, not its own event."
        )
        messages.append(Warning(text, hint=hint, id=f"{ID}W012"))
    if settings.HOLD:
        hint = "Leave HOLD out, or set COLLECT to 'buffer'."
        messages.append(Warning("HOLD with COLLECT 'forward': nothing is held.", hint=hint, id=f"{ID}W013"))
    if settings.ARCHIVE:
        hint = "Set ARCHIVE to False, or COLLECT to 'buffer'; a flush archives what it delivers."
        text = "ARCHIVE with COLLECT 'forward': only messages of server code are archived."
        messages.append(Warning(text, hint=hint, id=f"{ID}W014"))
    return messages


@register()
def check_region(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Each API_HOST is one that takes events, and the page's own script reports to the same region.

    A workspace of one region loses what is sent to the other, and nobody is told.
    """
    settings = get_settings()
    origins = {"['API_HOST']": settings.API_HOST}
    for alias, source in settings.SOURCES.items():
        origins[f"['SOURCES'][{alias!r}]['API_HOST']"] = source.get("API_HOST", settings.API_HOST)
    texts = []
    for where, origin in origins.items():
        host = urlsplit(origin).hostname or ""
        if _SEGMENTS_OWN.search(host) and host not in SEGMENT_HOSTS:
            texts.append(f"SEGMENT_FALLBACK{where}: {host!r} is not where Segment takes events.")
    api, script = urlsplit(settings.API_HOST).hostname, _script_host(settings.LOAD_OPTIONS)
    if script and script != api and {script, api} <= set(SEGMENT_HOSTS):
        texts.append(f"The apiHost in LOAD_OPTIONS is {script!r}, in another region than API_HOST, {api!r}.")
    hint = f"Write {' or '.join(SEGMENT_HOSTS.values())}: that of your workspace's region, or your own proxy of it."
    return [Warning(text, hint=hint, id=f"{ID}W007") for text in texts]


def _script_host(load_options: Mapping[str, Any]) -> str | None:
    """The host to which analytics.js is told to report."""
    try:
        api_host = load_options["integrations"]["Segment.io"]["apiHost"]
        return urlsplit(f"//{api_host}").hostname
    except (KeyError, TypeError, ValueError):
        return None


@register(deploy=True)
def check_hosts(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Which pages may report is known."""
    allowed = get_settings().ALLOWED_HOSTS
    hosts = django_settings.ALLOWED_HOSTS if allowed is None else allowed
    if "*" not in hosts:
        return []
    hint = "List your hosts in SEGMENT_FALLBACK['ALLOWED_HOSTS']; until then only the request's own host may report."
    return [Warning("Any host is allowed ('*').", hint=hint, id=f"{ID}W005")]
