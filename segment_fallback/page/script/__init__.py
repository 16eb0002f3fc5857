"""The page's script, of the parts that the settings ask for: readable in the ``.js`` files here, shipped minified."""

from __future__ import annotations

import functools
import hashlib
from importlib import resources

from segment_fallback.conf import Settings
from segment_fallback.names import pads


def parts(settings: Settings) -> tuple[str, ...]:
    """The names of the parts, in the order in which they run: first those that may forbid everything."""
    wanted = {
        "gpc_dnt": settings.HONOUR_GPC and settings.HONOUR_DNT,
        "gpc": settings.HONOUR_GPC and not settings.HONOUR_DNT,
        "dnt": settings.HONOUR_DNT and not settings.HONOUR_GPC,
        "consent": settings.CONSENT,
        "disable": not may_report(settings) or not settings.AUTOLOAD,
        "first_party": settings.FIRST_PARTY and not settings.EAGER,
        "eager": settings.EAGER,
        "identify": settings.IDENTIFY,
        "navigation": settings.NAVIGATION,
        "variations": settings.varies,
    }
    return tuple(name for name, on in wanted.items() if on)


def may_report(settings: Settings) -> bool:
    """Whether LOAD_OPTIONS do not switch analytics.js off."""
    return settings.LOAD_OPTIONS.get("disable") is not True


def inline(settings: Settings, config: str) -> str:
    """The script with its configuration, which must be safe inside of a script element."""
    return _call(parts(settings), config)


def external(settings: Settings) -> str:
    """The script as a file: its configuration is in the ``data-page`` of its own element."""
    return _call(parts(settings), "JSON.parse(document.currentScript.dataset.page)")


def digest(settings: Settings) -> str:
    """Names what the file holds, so that caches may keep it for ever; another name on every site."""
    return _digest(parts(settings), pads()[0])


@functools.cache
def _digest(names: tuple[str, ...], pad: str) -> str:
    return hashlib.sha256(f"{pad}{_call(names, '')}".encode()).hexdigest()[:12]


def _call(names: tuple[str, ...], config: str) -> str:
    again = "," + source("again") if "navigation" in names else ""
    return f"({source('snippet')})({config},[{','.join(map(_part, names))}]{again})"


def _part(name: str) -> str:
    # What page code may call before the part's turn comes must be there at once.
    return f"({source(name)})()" if name == "consent" else source(name)


@functools.cache
def source(name: str) -> str:
    """One minified file as an expression: a function."""
    text = resources.files("segment_fallback").joinpath(f"page/script/{name}.min.js").read_text("utf-8").strip()
    return text.removeprefix("PART(").removesuffix(");")
