"""The page's script as a file of the site's own, which all pages share."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response

from segment_fallback.conf import get_settings
from segment_fallback.page import script


def script_file(request: HttpRequest, name: str, digest: str) -> HttpResponseBase:
    """The script of today's settings, whichever was asked for: pages that caches kept must go on working.

    Under its own digest it never changes; under another, browsers ask again after an hour.
    """
    if request.method not in ("GET", "HEAD"):
        return HttpResponse(status=405, headers={"Allow": "GET, HEAD"})
    settings = get_settings()
    current = script.digest(settings)
    cached = "max-age=31536000, immutable" if digest == current else "max-age=3600"
    headers = {
        "Cache-Control": f"public, {cached}",
        "ETag": f'"{current}"',
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    response = HttpResponse(script.external(settings), content_type="text/javascript; charset=utf-8", headers=headers)
    return get_conditional_response(request, etag=headers["ETag"], response=response) or response
