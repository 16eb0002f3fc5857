"""analytics.js, its settings, its bundles and its destinations' code, from the site's own host.

GET and HEAD, where FIRST_PARTY is on; everything else is 404 or 405, with an empty body. Every answer is public: it
depends on the URL, for the settings also on host and scheme, and on Accept-Encoding; never on the visitor.
"""

from __future__ import annotations

import functools
import gzip
from collections.abc import Callable
from urllib.parse import quote

from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.utils.cache import get_conditional_response
from django.views.decorators.csrf import csrf_exempt

from segment_fallback.cdn import files, folder, rewrite
from segment_fallback.cdn.store import Entry, make_entry, store
from segment_fallback.conf import Source, get_settings
from segment_fallback.log import spare_admins
from segment_fallback.names import source_of_key

JAVASCRIPT = "text/javascript; charset=utf-8"
JSON = "application/json"

CHANGING = "public, max-age=300, stale-while-revalidate=3600, stale-if-error=86400"
IMMUTABLE = "public, max-age=31536000, immutable"

View = Callable[..., HttpResponse]


def public_file(view: View) -> View:
    """What the views have in common."""

    @csrf_exempt
    @transaction.non_atomic_requests
    @functools.wraps(view)
    def wrapped(request: HttpRequest, name: str, **path: str) -> HttpResponse:
        if not get_settings().FIRST_PARTY:
            return _nothing(404)
        if request.method not in ("GET", "HEAD"):
            response = _nothing(405)
            response["Allow"] = "GET, HEAD"
            return response
        # The path of our URLs for the CDN's files, quoted: it is to be written into scripts.
        base = quote(f"{request.path.partition(f'/{name}/c/')[0]}/{name}/c")
        return view(request, base, **path)

    return wrapped


@public_file
def script(request: HttpRequest, base: str, key: str) -> HttpResponse:
    """analytics.js of the source that has this public key."""
    source = _source(key)
    if source is None:
        return _nothing(404)
    place = rewrite.make_place(base, source, key)
    return _answer(request, _get(files.library(source), place), JAVASCRIPT, CHANGING)


@public_file
def source_settings(request: HttpRequest, base: str, key: str) -> HttpResponse:
    """The settings of the source that has this public key. Raises DisallowedHost as Django does."""
    source = _source(key)
    if source is None:
        return _nothing(404)
    host, scheme = request.get_host(), request.scheme or "https"
    place = rewrite.make_place(base, source, key)
    entry = _get(files.source_settings(source), place)
    if entry.usable:
        entry = _first_party_settings(place, entry.body, host, scheme, key)
    return _answer(request, entry, JSON, CHANGING)


@public_file
def bundle(request: HttpRequest, base: str, file: str) -> HttpResponse:
    """A part of the library."""
    return _file(request, base, files.bundle(file))


@public_file
def integration(request: HttpRequest, base: str, path: str) -> HttpResponse:
    """A destination's code."""
    return _file(request, base, files.integration(path))


def _file(request: HttpRequest, base: str, file: files.File | None) -> HttpResponse:
    if file is None:
        return _nothing(404)
    entry = _get(file, rewrite.make_place(base))
    return _answer(request, entry, JAVASCRIPT, IMMUTABLE if file.immutable else CHANGING)


def _source(key: str) -> Source | None:
    """The source of a public key. The write key itself is none: it may not be in a URL."""
    source = source_of_key(key)
    return source if source and source.write_key != key else None


def _get(file: files.File, place: rewrite.Place) -> Entry:
    own = get_settings().SELF_HOSTED
    return store.get(file, place) if own is None else folder.get(own, file, place)


@functools.lru_cache(maxsize=32)
def _first_party_settings(place: rewrite.Place, body: bytes, host: str, scheme: str, key: str) -> Entry:
    content = rewrite.first_party_settings(place, gzip.decompress(body), host=host, scheme=scheme, key=key)
    return make_entry(content)


def _answer(request: HttpRequest, entry: Entry, content_type: str, cache_control: str) -> HttpResponse:
    if not entry.usable:
        response = _nothing(entry.status)
        spare_admins(response)
        return response
    response = HttpResponse(content_type=content_type)
    if _takes_gzip(request):
        response.content = entry.body
        response["Content-Encoding"] = "gzip"
    else:
        response.content = gzip.decompress(entry.body)
    response["Content-Length"] = str(len(response.content))
    response["Cache-Control"] = cache_control
    response["Vary"] = "Accept-Encoding"
    # Weak, because it is that of the content in both encodings.
    response["ETag"] = etag = f'W/"{entry.tag}"'
    _protect(response)
    return get_conditional_response(request, etag=etag, response=response) or response


def _nothing(status: int) -> HttpResponse:
    response = HttpResponse(status=status, content_type="text/plain")
    response["Cache-Control"] = "no-store"
    _protect(response)
    return response


def _protect(response: HttpResponse) -> None:
    response["X-Content-Type-Options"] = "nosniff"
    response["Cross-Origin-Resource-Policy"] = "same-origin"


def _takes_gzip(request: HttpRequest) -> bool:
    """Whether the browser accepts gzip (RFC 9110, 12.5.3); one that says nothing of it gets none."""
    for offer in request.headers.get("Accept-Encoding", "").lower().split(","):
        coding, _, weight = offer.partition(";")
        if coding.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
