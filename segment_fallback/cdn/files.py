"""The files of Segment's CDN that we pass on, and no others: from our URLs to theirs.

Where they are there: https://segment.com/docs/connections/sources/catalog/libraries/website/javascript/custom-proxy/,
and the library's own source, which builds the URLs below ``analytics-next`` and ``next-integrations``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from segment_fallback.cdn import opaque
from segment_fallback.conf import Source

SEGMENTS_CDN = "https://cdn.segment.com"
"""What analytics.js and a source's settings say, wherever they are fetched from."""

LIBRARY = "standalone.js"
"""The file of the npm package that Segment's CDN serves as analytics.js."""

_NAME = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
# As the library writes a destination's name. No such name of more than a few letters says another one in base64; one in
# hex might, in our form, so what is encoded is tried before what is not.
_DESTINATION = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
# A content hash in the name: another content has another name.
_HASHED = re.compile(r"[./-][0-9a-f]{16,64}\.js(?:\.gz)?\Z")
_SCRIPT_ENDINGS = (".js", ".js.gz")
_SHORT = {"d": "integrations", "m": "middleware"}
# What follows a destination's name in the name of its code; our short paths leave it out.
_ENDINGS = {"integrations": "dynamic.js.gz", "middleware": "js.gz"}


@dataclass(frozen=True)
class File:
    """A file of the CDN: its path there, which may hold a write key, and its path in a folder of SELF_HOSTED."""

    path: str
    local: str
    title: str
    """For logs: without the write key."""
    is_settings: bool = False
    is_library: bool = False
    """Whether it is a part of analytics.js itself, and not code of a destination."""
    immutable: bool = False
    named_by_client: bool = False
    """Whether anybody can make up further names of this form."""


def library(source: Source) -> File:
    """analytics.js with the source's write key in it."""
    path = f"/analytics.js/v1/{quote(source.write_key, safe='')}/analytics.min.js"
    return File(path, LIBRARY, f"analytics.js of source {source.alias!r}", is_library=True)


def source_settings(source: Source) -> File:
    """What the library asks first: the source's destinations, plan and switches."""
    path = f"/v1/projects/{quote(source.write_key, safe='')}/settings"
    local = "settings.json" if source.alias == "default" else f"settings.{quote(source.alias, safe='')}.json"
    return File(path, local, f"settings of source {source.alias!r}", is_settings=True)


def bundle(name: str) -> File | None:
    """A part of the library that it loads when it needs it, by its name, plain or opaque; None if it is none."""
    meant = next(filter(_is_script, opaque.readings(name)), None)
    if meant is None:
        return None
    path = f"/analytics-next/bundles/{meant}"
    return File(path, meant, path, is_library=True, immutable=bool(_HASHED.search(path)), named_by_client=True)


def integration(path: str) -> File | None:
    """A destination's code, by its path on the CDN below ``next-integrations`` or by ours; None if it is none.

    Ours are ``<name>``, for the whole of that path, also with the ``a`` or ``.gz`` that the library wants behind it,
    ``d/<name>/<version>/<name>`` and ``m/<name>/<name>``, with opaque names.
    """
    match path.split("/"):
        case [name] | [name, "a"]:
            ending = ".gz" if name.endswith(".gz") else ""
            meanings = opaque.readings(name.removesuffix(ending))
            return next(filter(None, (_integration(f"{each}{ending}") for each in meanings)), None)
    return _integration(path)


def _integration(path: str) -> File | None:
    kind, *names = path.split("/")
    kind = _SHORT.get(kind, kind)
    if kind == "middleware" and len(names) == 2:
        names.insert(1, "l")
    match kind, names:
        case "actions", [name, _]:
            names[0] = _plain(name)
        case (("integrations" | "middleware"), [name, version, file]) if name != "vendor":
            stem, _, ending = file.partition(".")
            names = [
                _plain(name),
                "latest" if version == "l" else version,
                f"{_plain(stem)}.{ending or _ENDINGS[kind]}",
            ]
        case (("actions" | "integrations" | "middleware" | "vendor"), [_, *_]):
            pass
        case _:
            return None
    if len(names) > 3 or not all(map(_NAME.fullmatch, names)) or not _is_script(names[-1]):
        return None
    path = "/".join(("/next-integrations", kind, *names))
    return File(path, path[1:], path, immutable=bool(_HASHED.search(path)), named_by_client=True)


def opaque_url(url: str, base: str, pad: str, cdn_host: str) -> str:
    """The URL of a destination's code as one below ``base``, without the destination's name, which lists block.

    The library, with its option ``obfuscate``, encodes the last part but one once more, so the name stands there.
    A URL of another host than the CDN's, or that we would not pass on, stays what it is.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    prefix, _, path = parts.path.partition("/next-integrations/")
    if f"{parts.scheme}://{parts.netloc}" not in (SEGMENTS_CDN, cdn_host) or prefix or _integration(path) is None:
        return url
    return f"{base}/i/{opaque.write(path, pad)}/a"


def _is_script(name: str) -> bool:
    return bool(_NAME.fullmatch(name)) and name.endswith(_SCRIPT_ENDINGS)


def _plain(name: str) -> str:
    """The name that is meant."""
    return next(filter(_DESTINATION.fullmatch, [*opaque.readings(name)][1:]), name)
