"""Adds the snippet to HTML pages whose templates do not have it: for the middleware, with INJECT.

What a page is, its content says, not the request: a document begins with a doctype or ``<html>``. So the fragments that
htmx and Turbo ask for stay as they are, and a cache that does not tell such requests apart has one page for all.
Whatever fails is logged, and the page goes without.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import re
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, TypeVar

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.cache import get_conditional_response
from django.utils.text import compress_string

from segment_fallback.conf import get_settings, get_source
from segment_fallback.log import log_fields
from segment_fallback.names import endpoint_names
from segment_fallback.page.snippet import base, csp_nonce, render, variations_of
from segment_fallback.page.token import Page

logger = logging.getLogger("segment_fallback")

View = TypeVar("View", bound=Callable[..., Any])

MAX_HELD = 64 * 1024
"""Bytes of a streamed page that wait for the end of its head; past them it goes without."""

MAX_UNPACKED = 4 * 1024 * 1024
"""Bytes of a page that is worth unpacking."""

MAX_RANDOM_BYTES = 100
"""Of noise in the length of a packed page, as GZipMiddleware has it, against BREACH."""

_BEFORE_DOCUMENT = re.compile(rb"(?:\xef\xbb\xbf)?(?:\s+|<\?.*?>|<!--.*?-->)*", re.DOTALL)
_DOCUMENT = re.compile(rb"<(?:!doctype|html|head)[\s>]")
_FIRST_TAGS = (b"<!doctype ", b"<html>", b"<head>", b"<!--", b"<?")

_END_OF_HEAD = re.compile(
    rb"<!--.*?(?:-->|\Z)"
    rb"|<(script|style|title|template|noscript|textarea)(?=[\s/>]).*?(?:</\1(?=[\s>])|\Z)"
    rb"|(?P<end></head(?=[\s>])|<body(?=[\s>]))",
    re.DOTALL | re.IGNORECASE,
)
"""Where the head ends; before it, what may only look like its end. Each part ends at the latest with the text, so
that a search takes no longer than the text is long."""

_NONCE = re.compile(r"'nonce-([A-Za-z0-9+/_=-]+)'")


def without_snippet(view: View) -> View:
    """Decorates a view, sync or async, whose pages INJECT leaves alone."""
    if iscoroutinefunction(view):

        @functools.wraps(view)
        async def wrapper(*args: Any, **kwargs: Any) -> HttpResponseBase:
            return _left_alone(await view(*args, **kwargs))
    else:

        @functools.wraps(view)
        def wrapper(*args: Any, **kwargs: Any) -> HttpResponseBase:
            return _left_alone(view(*args, **kwargs))

    return wrapper  # type: ignore[return-value]


def _left_alone(response: HttpResponseBase) -> HttpResponseBase:
    response.segment_inject = False  # type: ignore[attr-defined]
    return response


def inject(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """The response with the snippet in it, where it is a page without one; else as it is. Never raises."""
    if not get_settings().INJECT or not _may_be_page(request, response):
        return response
    try:
        return _inject(request, response)
    except Exception:  # tracking never breaks a page
        logger.exception("a page could not be given the snippet", extra=log_fields("inject_failed"))
        return response


def _may_be_page(request: HttpRequest, response: HttpResponseBase) -> bool:
    if response.status_code != 200 or not getattr(response, "segment_inject", True):
        return False
    if response.get("Content-Type", "").partition(";")[0].strip().lower() != "text/html":
        return False
    if response.get("Content-Disposition", "").lower().startswith("attachment"):
        return False
    match = request.resolver_match
    return (match is None or "admin" not in match.app_names) and get_source() is not None


def _inject(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    charset = response.charset
    if "</head>".encode(charset) != b"</head>":
        return response  # UTF-16, say
    encoding = response.get("Content-Encoding", "identity").lower()
    if encoding not in ("identity", "gzip") or (encoding == "gzip" and response.streaming):
        _leave_packed(encoding, streaming=response.streaming)
        return response
    if isinstance(response, StreamingHttpResponse):
        splice = Splice(_snippet(request, response).encode(charset), marks(charset))
        _stream(response, splice)
        # It is not known yet whether the snippet finds its place: a length would be a promise.
        del response["Content-Length"]
        return _revalidated(request, response, splice.snippet)
    if not isinstance(response, HttpResponse):
        return response
    packed = encoding == "gzip"
    content = response.content
    page = _unpacked(content) if packed else content
    if request.method == "HEAD" and not content:
        # Its length is that of a page which a GET would have added to.
        del response["Content-Length"]
        return response
    place = end_of_head(page) if page and is_document(page) else None
    if page is None or place is None or any(mark in page for mark in marks(charset)):
        return response
    snippet = _snippet(request, response).encode(charset)
    page = b"".join((page[:place], snippet, page[place:]))
    response.content = compress_string(page, max_random_bytes=MAX_RANDOM_BYTES) if packed else page
    if response.has_header("Content-Length"):
        response["Content-Length"] = str(len(response.content))
    return _revalidated(request, response, snippet)


def _snippet(request: HttpRequest, response: HttpResponseBase) -> str:
    return render(Page(request.path), nonce=_nonce(request, response), seen=variations_of(request))


def _nonce(request: HttpRequest, response: HttpResponseBase) -> str | None:
    """The nonce that the policy allows; where a middleware before ours will make it, the one that it is going to."""
    policies = [
        response[header]
        for header in ("Content-Security-Policy", "Content-Security-Policy-Report-Only")
        if response.has_header(header)
    ]
    if not policies:
        return csp_nonce(request)
    found = next(filter(None, map(_NONCE.search, policies)), None)
    return found[1] if found else None


def marks(charset: str) -> tuple[bytes, ...]:
    """What only a page with our snippet has in it: where its script reports to, or comes from."""
    urls = [base(name) for name in endpoint_names()]
    return tuple(text.encode(charset) for url in urls for text in (f'"b":"{url}"', f'src="{url}f/'))


def is_document(text: bytes) -> bool | None:
    """Whether the text begins a whole HTML page; None while it is too short to tell."""
    before = _BEFORE_DOCUMENT.match(text)
    begin = text[before.end() if before else 0 :][: len(_FIRST_TAGS[0])].lower()
    if _DOCUMENT.match(begin):
        return True
    undecided = begin.startswith((b"<!--", b"<?")) or any(tag.startswith(begin) for tag in _FIRST_TAGS)
    return None if undecided else False


def end_of_head(text: bytes) -> int | None:
    """Where the head of an HTML page ends: at ``</head>``, or where that is left out, at ``<body>``."""
    return next((match.start() for match in _END_OF_HEAD.finditer(text) if match["end"]), None)


class Splice:
    """Puts the snippet into a page that comes in pieces. Holds back at most MAX_HELD bytes and a piece."""

    def __init__(self, snippet: bytes, marks: Iterable[bytes]) -> None:
        self.snippet, self._marks = snippet, marks
        self._held = bytearray()
        self._is_document: bool | None = None
        self._done = False

    def feed(self, piece: bytes) -> bytes:
        """What can be sent now."""
        if self._done:
            return piece
        self._held += piece
        # As long as it could be the last bytes of one piece and the first of this.
        recent = bytes(self._held[-(len(piece) + len(b"</head>")) :]).lower()
        place = None
        if b"</head" in recent or b"<body" in recent:
            place = end_of_head(bytes(self._held))
        if self._is_document is None:
            self._is_document = is_document(bytes(self._held))
        if place is None and len(self._held) <= MAX_HELD and self._is_document is not False:
            return b""
        held = self.rest()
        if place is None or not self._is_document or any(mark in held for mark in self._marks):
            return held
        return b"".join((held[:place], self.snippet, held[place:]))

    def rest(self) -> bytes:
        """What was held back to the end."""
        self._done = True
        held = bytes(self._held)
        self._held.clear()
        return held


def _stream(response: StreamingHttpResponse, splice: Splice) -> None:
    content: Any = response.streaming_content
    response.streaming_content = _spliced_async(content, splice) if response.is_async else _spliced(content, splice)


def _spliced(pieces: Iterable[bytes], splice: Splice) -> Iterator[bytes]:
    for piece in pieces:
        if ready := splice.feed(piece):
            yield ready
    if ready := splice.rest():
        yield ready


async def _spliced_async(pieces: AsyncIterator[bytes], splice: Splice) -> AsyncIterator[bytes]:
    async for piece in pieces:
        if ready := splice.feed(piece):
            yield ready
    if ready := splice.rest():
        yield ready


def _unpacked(content: bytes) -> bytes | None:
    """None for a page that is too large."""
    unpacker = zlib.decompressobj(wbits=31)
    page = unpacker.decompress(content, MAX_UNPACKED)
    return page if unpacker.eof and not unpacker.unused_data else None


@functools.cache
def _leave_packed(encoding: str, *, streaming: bool) -> None:
    """Says so, once a process."""
    kind = "streamed pages" if streaming else "pages"
    logger.warning(
        "INJECT leaves %s alone that come with Content-Encoding %.40r: place what packs them before SegmentMiddleware",
        kind,
        encoding,
        extra=log_fields("inject_impossible", encoding=encoding[:40]),
    )


def _revalidated(request: HttpRequest, response: HttpResponseBase, snippet: bytes) -> HttpResponseBase:
    """With an ETag of its own where it has one, and 304 where that is what the browser has already."""
    etag = response.get("ETag")
    if not etag or not etag.endswith('"'):
        return response
    response["ETag"] = etag = f'{etag[:-1]}-{hashlib.sha256(snippet).hexdigest()[:8]}"'
    if "If-None-Match" not in request.headers:
        return response  # the site has judged the date, if the browser named one
    judged: HttpResponseBase = get_conditional_response(request, etag=etag, response=response)  # type: ignore[arg-type, assignment]
    return judged
