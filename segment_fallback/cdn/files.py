"""The files of Segment's CDN that we pass on, and no others: from our URLs to theirs.

Where they are there: https://segment.com/docs/connections/sources/catalog/libraries/website/javascript/custom-proxy/,
and the library's own source, which builds the URLs below ``analytics-next`` and ``next-integrations``.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from segment_fallback.conf import Source

SEGMENTS_CDN = "https://cdn.segment.com"
"""What analytics.js and a source's settings say, wherever they are fetched from."""

LIBRARY = "standalone.js"
"""The file of the npm package that Segment's CDN serves as analytics.js."""

_NAME = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
# As the library writes a destination's name; longer words in base64 are never of this form.
_DESTINATION = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
# A content hash in the name: another content has another name.
_HASHED = re.compile(r"[./-][0-9a-f]{16,64}\.js(?:\.gz)?\Z")
_SCRIPT_ENDINGS = (".js", ".js.gz")


@dataclass(frozen=True)
class File:
    """A file of the CDN: its path there, which may hold a write key, and its path in a folder of SELF_HOSTED."""

    path: str
    local: str
    title: str
    """For logs: without the write key."""
    is_settings: bool = False
    immutable: bool = False
    named_by_client: bool = False
    """Whether anybody can make up further names of this form."""


def library(source: Source) -> File:
    """analytics.js with the source's write key in it."""
    path = f"/analytics.js/v1/{quote(source.write_key, safe='')}/analytics.min.js"
    return File(path, LIBRARY, f"analytics.js of source {source.alias!r}")


def source_settings(source: Source) -> File:
    """What the library asks first: the source's destinations, plan and switches."""
    path = f"/v1/projects/{quote(source.write_key, safe='')}/settings"
    local = "settings.json" if source.alias == "default" else f"settings.{quote(source.alias, safe='')}.json"
    return File(path, local, f"settings of source {source.alias!r}", is_settings=True)


def bundle(name: str) -> File | None:
    """A part of the library that it loads when it needs it; None for a name that is none."""
    if not _is_script(name):
        return None
    path = f"/analytics-next/bundles/{name}"
    return File(path, name, path, immutable=bool(_HASHED.search(path)), named_by_client=True)


def integration(path: str) -> File | None:
    """A destination's code, by the path below ``next-integrations``, in plain words or opaque; None if it is none."""
    kind, *names = path.split("/")
    if not 1 <= len(names) <= 3 or not all(map(_NAME.fullmatch, names)) or not _is_script(names[-1]):
        return None
    match kind, names:
        case "actions", [name, _]:
            names[0] = _plain(name)
        case (("integrations" | "middleware"), [name, _, file]) if name != "vendor":
            stem, _, rest = file.partition(".")
            names[0], names[2] = _plain(name), f"{_plain(stem)}.{rest}"
        case (("actions" | "integrations" | "middleware" | "vendor"), _):
            pass
        case _:
            return None
    path = "/".join(("/next-integrations", kind, *names))
    return File(path, path[1:], path, immutable=bool(_HASHED.search(path)), named_by_client=True)


def opaque_url(url: str, base: str, cdn_host: str) -> str:
    """The URL of a destination's code as one below ``base``, without the destination's name, which lists block.

    The name is written in base64, as the library itself does with its option ``obfuscate``. A URL of another host
    than the CDN's, or that we would not pass on, stays what it is.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    prefix, _, path = parts.path.partition("/next-integrations/")
    if f"{parts.scheme}://{parts.netloc}" not in (SEGMENTS_CDN, cdn_host) or prefix or integration(path) is None:
        return url
    match path.split("/"):
        case ["actions", name, file]:
            path = f"actions/{base64.b64encode(name.encode()).decode().rstrip('=')}/{file}"
    return f"{base}/next-integrations/{path}"


def _is_script(name: str) -> bool:
    return bool(_NAME.fullmatch(name)) and name.endswith(_SCRIPT_ENDINGS)


def _plain(name: str) -> str:
    """The name that is meant: the library's option ``obfuscate`` encodes it, and what we have encoded once more."""
    decoded = name
    for _ in range(2):
        try:
            decoded = base64.b64decode(decoded + "=" * (-len(decoded) % 4), validate=True).decode("ascii")
        except (binascii.Error, ValueError):
            break
        if _DESTINATION.fullmatch(decoded):
            return decoded
    return name
