"""What we change in the CDN's files, so that a page asks nobody but its own site and no write key is seen."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from segment_fallback.cdn import opaque
from segment_fallback.cdn.files import SEGMENTS_CDN, File, opaque_url
from segment_fallback.conf import DEFAULT_SOURCE, Source, get_settings, get_source
from segment_fallback.names import pads, public_key

_JAVASCRIPT = {
    f"{kind}/{name}" for kind in ("application", "text") for name in ("javascript", "x-javascript", "ecmascript")
}
# What object stores call a file whose type nobody told them.
_UNTYPED = {"application/octet-stream", "binary/octet-stream"}

_SOURCE_MAP = re.compile(rb"""(?m)(?:^[ \t]*|(?<=[;})]))//[#@][ \t]*sourceMappingURL=[^\s'"`]*[ \t]*$\n?""")
# A host in quotes, or before a path that we serve: neither a link to the documentation nor a regular expression.
_AFTER_HOST = rb"""(?=/(?:analytics-next/bundles|next-integrations|v1/projects)\b|["'`])"""
_API = re.compile(rb"""(["'])api\.segment\.io/v1\1""")

# The words of which the library's text builds URLs, which a list could name for every site, and what takes their place.
# The URLs with the words are answered, too, so each of these may be missing from a version of the library.
SHORTER = (
    (re.compile(rb"""/v1/projects/([^/\s]{1,40})/settings(?=["'`])"""), rb"/\1/s"),
    (re.compile(rb"""/analytics-next/bundles/(?=["'`])"""), b"/b/"),
    (re.compile(rb"""/next-integrations(?=["'`])"""), b"/i"),
    (re.compile(rb"""(?<=["'])/integrations/(?=["'])"""), b"/d/"),
    (re.compile(rb"""(?<=["'])\.dynamic\.js\.gz(?=["'])"""), b""),
    (re.compile(rb"""(?<=[:|])(["'])latest\1"""), b'"l"'),
    (re.compile(rb"""(?<=["'])/middleware/(?=["'])"""), b"/m/"),
    (re.compile(rb"""(?<=["'])/latest/(?=["'])"""), b"/"),
    (re.compile(rb"""(?<=["'])\.js\.gz(?=["'])"""), b""),
)
OBFUSCATE = re.compile(rb"""btoa\(([\w$]+)\)\.replace\(/=/g,(["'])\2\)""")
"""How the library writes a destination's name in a URL, with its option of that name."""
BUNDLES = re.compile(
    rb"""\(\{(?P<names>[^{}]*)\}\[(?P<id>[\w$]+)\]\|\|(?P=id)\)\+"\.bundle\."\+\{(?P<hashes>[^{}]*)\}\[(?P=id)\]\+"\.js\""""
)
"""How webpack writes the name of a bundle."""
_PAIR = re.compile(rb"""(?:^|,)(\d+):["']([\w.-]+)["']""")
# What a destination's code names for the library to load before it.
_DEPENDENCY = re.compile(rb"""(["'])/((?:integrations/)?vendor/[\w.-]+\.js)\1""")


@dataclass(frozen=True)
class Place:
    """Where a file is served, and what may not be in it."""

    base: str
    """Path of our URLs for the CDN's files, quoted: ``/s/abc234/c``."""
    cdn_host: str
    pad: str
    """Of the site, for `opaque`."""
    replacements: tuple[tuple[bytes, bytes], ...]
    """The site's write keys, and the place where the library wants one; for each the public key."""


def make_place(base: str, source: Source | None = None, key: str = "") -> Place:
    """The place of a source's own files, where ``key`` stands for its write key; without a source, of the others."""
    settings = get_settings()
    public = {source.write_key: key, "__WRITE_KEY__": key} if source else {}
    for alias in (DEFAULT_SOURCE, *settings.SOURCES):
        if other := get_source(alias):
            public.setdefault(other.write_key, public_key(alias))
    # A key that is a part of another one must not spoil it.
    pairs = sorted(public.items(), key=lambda pair: len(pair[0]), reverse=True)
    replacements = tuple((old.encode(), new.encode()) for old, new in pairs)
    return Place(base, settings.CDN_HOST.rstrip("/"), pads()[0], replacements)


def prepare(file: File, place: Place, content_type: str, body: bytes) -> bytes:
    """What is kept of a file. Raises ValueError for what is not to be served."""
    if file.is_settings:
        return settings(body)
    return script(place, content_type, body, is_library=file.is_library)


def script(place: Place, content_type: str, body: bytes, *, is_library: bool) -> bytes:
    """A script, to be served at that place: the CDN's and the API's host are ours, no source map, no write key, and
    what it asks for is below our short paths.

    Raises ValueError for what is no script: an error page of something on the way, or nothing at all.
    """
    if content_type not in _JAVASCRIPT | _UNTYPED:
        raise ValueError(f"the type is {content_type[:40]!r}, not JavaScript")
    if not body.strip() or body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise ValueError("no script")
    body = _SOURCE_MAP.sub(b"", body)
    for host in {SEGMENTS_CDN, place.cdn_host}:
        body = re.sub(re.escape(host.encode()) + _AFTER_HOST, place.base.encode(), body)
    # The library's reports of its own failures, and its default for events. It puts "https://" before it.
    body = _API.sub(rb'(location.host+"' + events_path(place.base).encode() + rb'")', body)
    body = (_with_short_paths if is_library else _with_opaque_dependencies)(body, place.pad)
    return redact(body, place)


def _with_short_paths(body: bytes, pad: str) -> bytes:
    """A part of the library that asks for what it needs without Segment's words, and by opaque names."""
    for words, letters in SHORTER:
        body = words.sub(letters, body)
    body = OBFUSCATE.sub(lambda found: opaque.javascript(found[1].decode(), pad).encode(), body)
    return BUNDLES.sub(lambda found: _opaque_bundles(found, pad), body)


def _opaque_bundles(found: re.Match[bytes], pad: str) -> bytes:
    names, hashes = dict(_PAIR.findall(found["names"])), dict(_PAIR.findall(found["hashes"]))
    if (len(names), len(hashes)) != (found["names"].count(b":"), found["hashes"].count(b":")):
        return found[0]
    files = {key: b"%s.bundle.%s.js" % (names.get(key, key), digest) for key, digest in hashes.items()}
    pairs = (b'%s:"%s"' % (key, opaque.write(file.decode(), pad).encode()) for key, file in files.items())
    return b"({%s})[%s]" % (b",".join(pairs), found["id"])


def _with_opaque_dependencies(body: bytes, pad: str) -> bytes:
    return _DEPENDENCY.sub(lambda found: b'"/%s"' % opaque.write(found[2].decode(), pad).encode(), body)


def settings(body: bytes) -> bytes:
    """A source's settings, checked, as compact JSON. Raises ValueError for what the library could not use."""
    try:
        content = json.loads(body, parse_constant=_no_such_number)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    match content:
        case {"integrations": dict() as integrations} if all(isinstance(each, dict) for each in integrations.values()):
            pass
        case _:
            raise ValueError("no settings of a source")
    if not isinstance(content.get("remotePlugins", []), list):
        raise ValueError("no settings of a source")
    return _json(content)


def first_party_settings(place: Place, body: bytes, *, host: str, scheme: str, key: str) -> bytes:
    """Checked settings for pages of ``scheme://host``: events, metrics and plugins come to us, under a public key."""
    content: dict[str, Any] = json.loads(body)
    api_host = host + events_path(place.base)
    own = content["integrations"].get("Segment.io", {})
    content["integrations"]["Segment.io"] = {**own, "apiKey": key, "apiHost": api_host, "protocol": scheme}
    metrics = content.get("metrics")
    rate = metrics.get("sampleRate", 0) if isinstance(metrics, Mapping) and scheme == "https" else 0
    # The library takes no protocol from here and reports to https, so on http it does not report.
    content["metrics"] = {**(metrics if isinstance(metrics, Mapping) else {}), "host": api_host, "sampleRate": rate}
    for plugin in content.get("remotePlugins", []):
        if isinstance(plugin, dict) and isinstance(plugin.get("url"), str):
            plugin["url"] = opaque_url(plugin["url"], place.base, place.pad, place.cdn_host)
    return redact(_json(content), place)


def minimal_settings() -> bytes:
    """Settings of a source that has no destinations but Segment itself."""
    content = {
        "integrations": {
            "Segment.io": {
                "unbundledIntegrations": [],
                "addBundledMetadata": True,
                "maybeBundledConfigIds": {},
                "versionSettings": {"version": "4.4.7", "componentTypes": ["browser"]},
            }
        },
        "plan": {"track": {"__default": {"enabled": True, "integrations": {}}}},
        "edgeFunction": {},
        "analyticsNextEnabled": True,
        "middlewareSettings": {},
        "enabledMiddleware": {},
        "legacyVideoPluginsEnabled": False,
        "remotePlugins": [],
    }
    return _json(content)


def events_path(base: str) -> str:
    """The path of the Tracking API for pages, which is mounted beside ``base``."""
    return base.rpartition("/")[0] + "/e"


def redact(body: bytes, place: Place) -> bytes:
    """The same with public keys for write keys."""
    for secret, public in place.replacements:
        body = body.replace(secret, public)
    return body


def _json(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _no_such_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
