"""Reads what a page carries as a browser would: tags by an HTML parser, the script's argument as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

from segment_fallback.page.script import source


@dataclass
class Found:
    """The elements in their order, each with its attributes; and the text of scripts."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    script: str = ""

    @property
    def arguments(self) -> str:
        """The argument of the page's script, as it is written."""
        rest = self.script.removeprefix(f"({source('snippet')})(")
        assert rest != self.script
        _, end = json.JSONDecoder().raw_decode(rest)
        assert rest[end:].startswith(",[")
        return rest[:end]

    @property
    def config(self) -> dict[str, Any]:
        """The argument of the page's script, as it reads it."""
        config: dict[str, Any] = json.loads(self.arguments)
        return config

    @property
    def page_call(self) -> list[Any]:
        """Category, name and properties, as analytics.page gets them."""
        call: list[Any] = self.config["a"]
        return call

    def attributes(self, tag: str) -> dict[str, str | None]:
        [attributes] = [attributes for name, attributes in self.tags if name == tag]
        return attributes


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found = Found()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.tags.append((tag, dict(attrs)))
        if tag not in ("img", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        assert self.open == ["script"], f"text outside the script: {data!r}"
        self.found.script += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data!r}")


def parse(html: str) -> Found:
    """The snippet's elements. Fails where anything stands outside of them."""
    parser = _Parser()
    parser.feed(html)
    parser.close()
    assert not parser.open
    return parser.found
