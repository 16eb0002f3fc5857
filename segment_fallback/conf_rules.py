"""What a key of ``SEGMENT_FALLBACK`` may be: its type, and the rules past that."""

from __future__ import annotations

import contextlib
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit


def fits(value: object, hint: Any) -> bool:
    """Whether the value is of the type that the hint of a setting names."""
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return any(fits(value, option) for option in typing.get_args(hint))
    if origin is tuple:
        return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    if origin is not None:
        return isinstance(value, origin)
    if hint in (int, float) and isinstance(value, bool):
        return False
    if hint is float:
        return isinstance(value, (int, float))
    return isinstance(value, hint)


def describe(hint: Any) -> str:
    """The type in words, to stand after "must be"."""
    words = {str: "a string", int: "a whole number", float: "a number", bool: "True or False"}
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(describe(option) for option in typing.get_args(hint))
    if hint is type(None):
        return "None"
    if origin is tuple:
        return "a list of strings"
    return words.get(hint, "a dict")


Rule = Callable[[Any], str | None]
"""What is wrong with a value, to stand after the key; None where nothing is."""


def _origin(value: str) -> str | None:
    # A port or an IPv6 address that is none raises ValueError.
    with contextlib.suppress(ValueError):
        if re.fullmatch(r"https?://[^\s/?#@\\]+/?", value) and urlsplit(value).port != 0:
            return None
    return "must be an origin: scheme and host, without a path, such as 'https://api.segment.io'"


def _not_negative(value: float) -> str | None:
    return None if 0 <= value < math.inf else "must be 0 or more, and finite"


def _up_to_an_hour(value: float) -> str | None:
    return None if 0 <= value <= 3_600 else "must be from 0 to 3,600 seconds"


def _send_timeout(value: float) -> str | None:
    # A flush leases a part for four times as long, and a buffer takes a lease of over an hour for a wrong clock's.
    return None if 0 < value <= 600 else "must be more than 0, and at most 600 seconds"


def _positive(value: float) -> str | None:
    return None if 0 < value < math.inf else "must be more than 0, and finite"


def _name(value: str) -> str | None:
    if value and len(value) <= 40 and all(c.isascii() and (c.isalnum() or c in "_-") for c in value):
        return None
    return "must be 1 to 40 ASCII letters, digits, '-' or '_'"


def _buffers(value: Mapping[str, Any]) -> str | None:
    if "default" not in value:
        return "must have the alias 'default'"
    for alias, config in value.items():
        if not isinstance(config, Mapping) or not isinstance(config.get("BACKEND"), str):
            return f"[{alias!r}] must be a dict with the key 'BACKEND', a dotted path"
        if unknown := sorted(set(config) - {"BACKEND", "OPTIONS"}, key=str):
            return f"[{alias!r}] has the unknown key {unknown[0]!r}: write 'BACKEND' and 'OPTIONS'"
        if not isinstance(config.get("OPTIONS", {}), Mapping):
            return f"[{alias!r}]['OPTIONS'] must be a dict"
    return None


OAUTH_ARGUMENTS = {"client_id", "client_key", "key_id"}


def _oauth(value: Mapping[str, Any]) -> str | None:
    if unknown := sorted(set(value) - OAUTH_ARGUMENTS - {"auth_server", "scope", "timeout", "max_retries"}, key=str):
        return f"has the unknown key {unknown[0]!r}"
    if value and (missing := sorted(OAUTH_ARGUMENTS - set(value))):
        return f"needs the key {missing[0]!r}"
    return None


def _write_key(value: str) -> str | None:
    if re.fullmatch(r"[!-~]*", value):
        return None
    return "must be ASCII characters without spaces or line breaks, as Segment shows the key"


def _sources(value: Mapping[str, Any]) -> str | None:
    for alias, source in value.items():
        if alias == "default" or alias != str(alias) or len(alias) > 40:
            return f"has the alias {alias!r}: it must be a text of at most 40 characters, and not 'default'"
        if not isinstance(source, Mapping) or not isinstance(source.get("WRITE_KEY"), str):
            return f"[{alias!r}] must be a dict with the key 'WRITE_KEY'"
        if fault := _write_key(source["WRITE_KEY"]):
            return f"[{alias!r}]['WRITE_KEY'] {fault}"
        if unknown := sorted(set(source) - {"WRITE_KEY", "API_HOST", "OAUTH"}, key=str):
            return f"[{alias!r}] has the unknown key {unknown[0]!r}"
        host, oauth = source.get("API_HOST", "https://host"), source.get("OAUTH", {})
        if not isinstance(host, str) or not isinstance(oauth, Mapping):
            return f"[{alias!r}]: 'API_HOST' must be a string, and 'OAUTH' a dict"
        if fault := _origin(host) or _oauth(oauth):
            return f"[{alias!r}]: {fault}"
    return None


def _consent(value: Mapping[str, Any]) -> str | None:
    if unknown := sorted(set(value) - {"COOKIE", "VALUE", "CONTAINS", "CALLBACK"}, key=str):
        return f"has the unknown key {unknown[0]!r}: write 'COOKIE' with 'VALUE' or 'CONTAINS', or 'CALLBACK'"
    if not value or value == {"CALLBACK": True}:
        return None
    if "CALLBACK" in value or {"VALUE", "CONTAINS"} <= set(value):
        return "must name one way: 'COOKIE' alone, with 'VALUE' or with 'CONTAINS', or 'CALLBACK': True"
    if not all(isinstance(text, str) and text for text in value.values()):
        return "must have texts as its values, none of them empty"
    if not re.fullmatch(r"[!#$%&'*+.^_`|~\w-]+", value.get("COOKIE", ""), re.ASCII):
        return "needs the key 'COOKIE', the name of a cookie"
    return None


def _profiles(value: Mapping[str, Any]) -> str | None:
    if value and not isinstance(value.get("BACKEND"), str):
        return "must be a dict with the key 'BACKEND', a dotted path"
    if unknown := sorted(set(value) - {"BACKEND", "OPTIONS"}, key=str):
        return f"has the unknown key {unknown[0]!r}: write 'BACKEND' and 'OPTIONS'"
    return None if isinstance(value.get("OPTIONS", {}), Mapping) else "['OPTIONS'] must be a dict"


def _secrets(value: tuple[str, ...]) -> str | None:
    return None if all(len(secret) >= 8 for secret in value) else "must have secrets of at least 8 characters"


PROFILE_API_NUMBERS = {"TIMEOUT": 0.05, "RATE": 10.0, "REFRESH": 3_600.0}


def _profile_api(value: Mapping[str, Any]) -> str | None:
    if unknown := sorted(set(value) - {"SPACE", "TOKEN", "HOST", *PROFILE_API_NUMBERS}, key=str):
        return f"has the unknown key {unknown[0]!r}"
    texts = [value.get(key) for key in ("SPACE", "TOKEN")]
    if value and not all(isinstance(text, str) and text.isascii() and text.isprintable() and text for text in texts):
        return "needs the keys 'SPACE' and 'TOKEN', texts of ASCII characters"
    host = value.get("HOST", "https://host")
    if not isinstance(host, str) or (fault := _origin(host)):
        return f"['HOST'] {fault if isinstance(host, str) else 'must be a string'}"
    for key in PROFILE_API_NUMBERS:
        if not fits(number := value.get(key, 1), float) or not 0 < number < math.inf:
            return f"[{key!r}] must be a number, more than 0 and finite"
    return None


def _navigation(value: str) -> str | None:
    return None if value in ("", "auto", "manual") else "must be 'auto', 'manual' or ''"


def _days(value: float) -> str | None:
    return None if 0 <= value <= 36_500 else "must be from 0 to 36,500 days"


def _archive(value: str | bool) -> str | None:
    return "must be an alias of STORAGES, True or False" if value == "" else None


def _collect(value: str) -> str | None:
    return None if value in ("buffer", "forward") else "must be 'buffer' or 'forward'"


def _variations(value: str) -> str | None:
    return None if value in ("", "visitor", "edge") else "must be 'visitor', 'edge' or ''"


RULES: dict[str, Rule] = {
    "WRITE_KEY": _write_key,
    "OAUTH": _oauth,
    "SOURCES": _sources,
    "API_HOST": _origin,
    "CDN_HOST": _origin,
    "BUFFERS": _buffers,
    "ENDPOINT_NAME": _name,
    "SPOOL_MAX_BYTES": _not_negative,
    "ARCHIVE": _archive,
    "ARCHIVE_DAYS": _days,
    "TOKEN_MAX_AGE": _positive,
    "TRUSTED_PROXIES": _not_negative,
    "RATE_LIMIT": _not_negative,
    "EVENT_ATTEMPTS": _positive,
    "CONSENT": _consent,
    "NAVIGATION": _navigation,
    "COLLECT": _collect,
    "VARIATIONS": _variations,
    "PATIENCE": _positive,
    "PROFILES": _profiles,
    "PROFILE_TTL": _positive,
    "PROFILE_SECRETS": _secrets,
    "PROFILE_API": _profile_api,
    "HOLD": _up_to_an_hour,
    "FLUSH_BUDGET": _positive,
    "HEALTH_MAX_AGE": _positive,
    "HEALTH_MAX_SILENCE": _positive,
    "SEND_TIMEOUT": _send_timeout,
    "SENDS_IN_FLIGHT": _positive,
    "OUTCOME_INTERVAL": _not_negative,
}
