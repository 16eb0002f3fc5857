"""The page's script, of the parts that the settings ask for: readable in the ``.js`` files here, shipped minified."""

from __future__ import annotations

import functools
import hashlib
from importlib import resources

from segment_fallback.conf import Settings


def parts(settings: Settings) -> tuple[str, ...]:
    """The names of the parts, in the order in which they run: first those that may forbid everything."""
    wanted = {
        "gpc_dnt": settings.HONOUR_GPC and settings.HONOUR_DNT,
        "gpc": settings.HONOUR_GPC and not settings.HONOUR_DNT,
        "dnt": settings.HONOUR_DNT and not settings.HONOUR_GPC,
        "consent": settings.CONSENT,
        "first_party": settings.FIRST_PARTY and not settings.EAGER,
        "eager": settings.EAGER,
        "identify": settings.IDENTIFY,
        "navigation": settings.NAVIGATION,
    }
    return tuple(name for name, on in wanted.items() if on)


def inline(settings: Settings, config: str) -> str:
    """The script with its configuration, which must be safe inside of a script element."""
    return _call(parts(settings), config)


def external(settings: Settings) -> str:
    """The script as a file: its configuration is in the ``data-page`` of its own element."""
    return _call(parts(settings), "JSON.parse(document.currentScript.dataset.page)")


def digest(settings: Settings) -> str:
    """Names what the file holds, so that caches may keep it for ever."""
    return _digest(parts(settings))


@functools.cache
def _digest(names: tuple[str, ...]) -> str:
    return hashlib.sha256(_call(names, "").encode()).hexdigest()[:12]


def _call(names: tuple[str, ...], config: str) -> str:
    again = "," + source("again") if "navigation" in names else ""
    return f"({source('snippet')})({config},[{','.join(map(source, names))}]{again})"


@functools.cache
def source(name: str) -> str:
    """One minified file as an expression: a function."""
    text = resources.files("segment_fallback").joinpath(f"page/script/{name}.min.js").read_text("utf-8").strip()
    return text.removeprefix("PART(").removesuffix(");")
