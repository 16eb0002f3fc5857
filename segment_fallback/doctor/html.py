"""Reads a page as far as the doctor needs: its scripts, images and metas, and our own snippet among them."""

from __future__ import annotations

import codecs
import itertools
import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

CONFIG_KEYS = {"k", "u", "a", "b", "t", "c", "w"}
"""What each configuration of our page's script has: see the head of ``page/script/snippet.js``."""

RUNNABLE = {"", "module", "text/javascript", "application/javascript", "application/ecmascript", "text/ecmascript"}
"""Types of scripts that a browser runs."""

MAX_TRIED = 5
"""How many places of a script are tried where a configuration may begin."""

_CONFIG = re.compile(r'\{\s*"k":')
_META_CHARSET = re.compile(rb"""<meta[^>]+charset\s*=\s*["']?([\w-]+)""", re.IGNORECASE)


@dataclass
class Element:
    """A start tag with its attributes, the line where it is, and, of a script, its text."""

    tag: str
    attributes: dict[str, str]
    line: int
    in_noscript: bool = False
    text: str = ""

    @property
    def runs(self) -> bool:
        """Whether a browser runs this script by itself."""
        return self.attributes.get("type", "").strip().lower() in RUNNABLE


@dataclass(frozen=True)
class Hook:
    """Our snippet in a page: its element, and the configuration, or None where that can no longer be read."""

    element: Element
    config: dict[str, Any] | None

    @property
    def is_external(self) -> bool:
        """Whether the page's script is a file: EXTERNAL_SCRIPT."""
        return "data-page" in self.element.attributes

    @property
    def loads(self) -> bool:
        """Whether it calls ``analytics.load`` itself: AUTOLOAD."""
        return bool(self.config) and "o" in (self.config or {})


@dataclass
class Document:
    """A page, parsed."""

    text: str
    elements: list[Element] = field(default_factory=list)

    def all(self, tag: str) -> list[Element]:
        """The elements of that name, in their order."""
        return [element for element in self.elements if element.tag == tag]

    def meta(self, attribute: str, name: str) -> list[str]:
        """The contents of the metas whose attribute has this value, in any case."""
        metas = (meta.attributes for meta in self.all("meta"))
        return [meta.get("content", "") for meta in metas if meta.get(attribute, "").lower() == name]


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._script: Element | None = None
        self._noscript = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "noscript":
            self._noscript += 1
        element = Element(tag, {k: v or "" for k, v in reversed(attrs)}, self.getpos()[0], self._noscript > 0)
        self.elements.append(element)
        self._script = element if tag == "script" else None

    def handle_endtag(self, tag: str) -> None:
        if tag == "noscript":
            self._noscript = max(self._noscript - 1, 0)
        self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self._script.text += data


def parse(text: str) -> Document:
    """Read a page; what is no HTML gives a document without elements."""
    parser = _Parser()
    try:
        parser.feed(text)
        parser.close()
    except (AssertionError, ValueError, RecursionError):  # what HTMLParser says of odd declarations
        pass
    return Document(text, parser.elements)


def decode(body: bytes, charset: str) -> tuple[str, str]:
    """The text of a page, and what is wrong with its charset, or nothing. The header's charset goes before a meta's."""
    found = _META_CHARSET.search(body[:2048])
    name = charset or (found[1].decode("ascii", "replace") if found else "utf-8")
    try:
        codecs.lookup(name)
    except LookupError:
        return body.decode("utf-8", "replace"), f"it says that its charset is {name[:40]!r}, which nobody knows"
    try:
        return body.decode(name), ""
    except (UnicodeError, ValueError):
        return body.decode("utf-8", "replace"), f"it says that its charset is {name[:40]!r}, and it is not"


def hooks(document: Document, urls: list[str]) -> list[Hook]:
    """Our snippets in a page, those too that cannot be read but name one of the URLs below which our endpoints are."""
    found = []
    for script in document.all("script"):
        config = _config(script.attributes.get("data-page", "") or script.text)
        source = script.attributes.get("src", "")
        if config or any(url in script.text or f"{url}f/" in source for url in urls):
            found.append(Hook(script, config))
    return found


def _config(text: str) -> dict[str, Any] | None:
    for match in itertools.islice(_CONFIG.finditer(text), MAX_TRIED):
        try:
            config, _ = json.JSONDecoder().raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(config, dict) and set(config) >= CONFIG_KEYS and isinstance(config["t"], str):
            return config
    return None
