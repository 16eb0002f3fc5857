"""Segment's CDN: the real analytics.js from the npm package, with settings that point it here."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from segment_fallback.testing.answers import Answer, as_json, refusal

PACKAGE = "@segment/analytics-next"
_UMD = Path("dist", "umd")
_LIBRARY = re.compile(r"/analytics\.js/v1/(?P<key>[\w-]+)/analytics(?:\.min)?\.js")
_SETTINGS = re.compile(r"/v1/projects/(?P<key>[\w-]+)/settings")
# No slash and no percent sign: a name cannot lead out of the folder.
_BUNDLE = re.compile(r"/analytics-next/bundles/(?P<name>[\w.-]+\.js(?:\.map)?)")


def find_package(given: str | os.PathLike[str] | None = None) -> Path | None:
    """Find the npm package: `given`, else $SEGMENT_ANALYTICS_NEXT, else in a node_modules here or above.

    The first two may name the package's folder, a node_modules, or the folder that has one, and raise
    FileNotFoundError if they name none of these. None: there is no package.
    """
    named = given or os.environ.get("SEGMENT_ANALYTICS_NEXT")
    if named:
        places = [Path(named), Path(named, PACKAGE), Path(named, "node_modules", PACKAGE)]
    else:
        here = Path.cwd()
        places = [Path(folder, "node_modules", PACKAGE) for folder in (here, *here.parents)]
    for place in places:
        if (place / _UMD / "standalone.js").is_file():
            return place.resolve()
    if named:
        raise FileNotFoundError(f"no {PACKAGE} in {named}: name the package's folder or its node_modules")
    return None


def answer(path: str, host: str, package: Path | None, write_keys: Collection[str] | None) -> Answer:
    """Answer a GET of `path`; `host` is the request's Host, to which the library shall then send."""
    found = _LIBRARY.fullmatch(path) or _SETTINGS.fullmatch(path) or _BUNDLE.fullmatch(path)
    if found is None:
        return refusal(404, "no such path")
    if package is None:
        return refusal(404, f"no analytics.js: `npm install {PACKAGE}`, or set SEGMENT_ANALYTICS_NEXT to its folder")
    parts = found.groupdict()
    if "name" in parts:
        return _javascript(package / _UMD / parts["name"])
    key = parts["key"]
    if write_keys is not None and key not in write_keys:
        return refusal(404, "unknown write key")
    if found.re is _SETTINGS:
        return as_json(settings(key, host))
    return _javascript(package / _UMD / "standalone.js", key)


def settings(key: str, host: str) -> dict[str, object]:
    """A source's settings: no destinations but Segment itself, on `host` ("127.0.0.1:8001") by plain HTTP."""
    return {
        "integrations": {
            "Segment.io": {
                "apiKey": key,
                "apiHost": f"{host}/v1",
                "protocol": "http",
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
        # The library ignores a protocol given here and would report to https.
        "metrics": {"sampleRate": 0},
        "legacyVideoPluginsEnabled": False,
        "remotePlugins": [],
    }


def _javascript(file: Path, key: str | None = None) -> Answer:
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return refusal(404, "no such bundle")
    if key is not None:
        content = content.replace(b"__WRITE_KEY__", key.encode())  # as Segment's CDN does
    kind = "application/json" if file.suffix == ".map" else "application/javascript"
    return Answer(status=200, headers={"Content-Type": f"{kind}; charset=utf-8"}, body=content)
