"""Names that are derived from the site's secret, so that no blockers' list can name them for every site.

What is left for a list is a regular expression on the shape of our URLs, which would meet other sites' URLs, too.
A retired ``SECRET_KEY`` keeps its names while it is among ``SECRET_KEY_FALLBACKS``, for the sake of cached pages.
"""

from __future__ import annotations

import base64
import functools
from typing import Any

from django.conf import settings as django_settings
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.crypto import salted_hmac

from segment_fallback.conf import DEFAULT_SOURCE, Source, get_settings, get_source


def endpoint_names() -> tuple[str, ...]:
    """The path segments under which our endpoints answer: the one to write now, then those that old pages carry."""
    return _endpoint_names(get_settings().ENDPOINT_NAME, secrets())


@functools.lru_cache(maxsize=8)  # every page asks, and each reading of Django's settings costs a fifth of a microsecond
def endpoint_paths(fixed: str | None) -> tuple[str, ...]:
    """What the path of a request to one of our endpoints holds: ``/name/``, of each name. ``fixed``: ENDPOINT_NAME."""
    return tuple(f"/{name}/" for name in _endpoint_names(fixed, secrets()))


def public_key(alias: str = DEFAULT_SOURCE) -> str:
    """What a page of FIRST_PARTY says where analytics.js wants a write key; it tells nobody the real one."""
    return _public_key(alias, django_settings.SECRET_KEY)


def hint_cookie() -> str:
    """The cookie that only says that somebody is signed in."""
    return _derived("segment_fallback.hint_cookie", "", django_settings.SECRET_KEY)[:8]


def id_cookies() -> tuple[str, ...]:
    """The signed cookie of the anonymousId: the name to write now, then those that visitors may still have."""
    return _id_cookies(secrets())


def variation_cookie(experiment: str) -> str:
    """The cookie that says which of a page's variations its visitor gets."""
    return _derived("segment_fallback.variation_cookie", experiment, django_settings.SECRET_KEY)[:8]


def variation_signature(experiment: str, variation: str) -> str:
    """What proves that such a cookie is ours: 100 bits, the same for all visitors of the variation."""
    return _derived("segment_fallback.variation", f"{experiment}.{variation}", django_settings.SECRET_KEY)[:20]


def pads() -> tuple[str, ...]:
    """What makes the names of files the site's own: the pad to write with now, then those that we still read."""
    return tuple(_derived("segment_fallback.pad", "", secret)[:32] for secret in secrets())


def source_of_key(key: str) -> Source | None:
    """The source that a client means, by its public key or (server libraries have it) by the write key itself."""
    for alias in (DEFAULT_SOURCE, *get_settings().SOURCES):
        source = get_source(alias)
        if source and (key == source.write_key or key in (_public_key(alias, secret) for secret in secrets())):
            return source
    return None


@functools.cache
def secrets() -> tuple[str | bytes, ...]:
    """The site's SECRET_KEY, then those that it has retired."""
    return (django_settings.SECRET_KEY, *django_settings.SECRET_KEY_FALLBACKS)


@receiver(setting_changed, dispatch_uid="segment_fallback.names")
def _forget_secrets(*, setting: str, **kwargs: Any) -> None:
    """Of tests only: a site's secrets change by a restart."""
    if setting in ("SECRET_KEY", "SECRET_KEY_FALLBACKS"):
        secrets.cache_clear()
        endpoint_paths.cache_clear()


def _public_key(alias: str, secret: str | bytes) -> str:
    return _derived("segment_fallback.public_key", alias, secret)[:32]


@functools.lru_cache(maxsize=8)
def _endpoint_names(fixed: str | None, secrets: tuple[str | bytes, ...]) -> tuple[str, ...]:
    names = tuple(_derived("segment_fallback.endpoint_name", "", secret)[:6] for secret in secrets)
    return (fixed, *names) if fixed else names


@functools.lru_cache(maxsize=8)
def _id_cookies(secrets: tuple[str | bytes, ...]) -> tuple[str, ...]:
    return tuple(_derived("segment_fallback.id_cookie", "", secret)[:8] for secret in secrets)


@functools.lru_cache(maxsize=512)
def _derived(salt: str, value: str, secret: str | bytes) -> str:
    digest = salted_hmac(salt, value, secret=secret, algorithm="sha256").digest()
    return base64.b32encode(digest).decode().lower()
