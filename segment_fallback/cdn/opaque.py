"""Names of files in our URLs, written otherwise on every site, so that no list can name them for all.

Each character is mixed, by exclusive or, with one of the site's pad (``names.pads``), and the whole written in hex. It
hides nothing from who cares to look; it need only differ by site, and be short enough in JavaScript.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Iterator
from itertools import cycle

from segment_fallback.names import pads


def write(name: str, pad: str) -> str:
    """The name, which must be ASCII, in the form of the site that has that pad."""
    return _mix(name.encode("ascii"), pad).hex()


def javascript(expression: str, pad: str) -> str:
    """An expression of JavaScript that writes the text of another one, in parentheses or a name, as `write` does."""
    mixed = f'(256+(c.charCodeAt(0)^"{pad}".charCodeAt(i%{len(pad)})))'
    return f"{expression}.replace(/[^]/g,function(c,i){{return {mixed}.toString(16).slice(1)}})"


def readings(text: str) -> Iterator[str]:
    """What may be meant by a text: itself, and what it says if we or the library have encoded it, once or twice.

    The library, with its option ``obfuscate``, encodes in its turn what we have; where `javascript` has not taken
    the place of that, in base64.
    """
    texts = [text]
    for _ in range(2):
        yield from texts
        texts = [decoded for each in texts for decoded in _decodings(each)]
    yield from texts


def _decodings(text: str) -> Iterator[str]:
    with contextlib.suppress(ValueError):
        mixed = bytes.fromhex(text)
        yield from (_mix(mixed, pad).decode("ascii") for pad in pads() if mixed.isascii())
    with contextlib.suppress(binascii.Error, ValueError):
        yield base64.b64decode(text + "=" * (-len(text) % 4), validate=True).decode("ascii")


def _mix(text: bytes, pad: str) -> bytes:
    return bytes(a ^ b for a, b in zip(text, cycle(pad.encode()), strict=False))
