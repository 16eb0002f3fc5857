"""Further pages of the site in ``project.py``: of choices, identity and policies. Tests change its settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from csp.decorators import csp
from csp.middleware import CSPMiddleware
from django.conf import settings
from django.contrib import auth
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template import engines
from django.urls import path

NODE_MODULES = Path(__file__).parents[2] / "node_modules"

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>A page</title>
{% load segment_fallback %}{% segment_snippet name %}</head><body>{{ rest }}</body></html>"""

WRAPPER = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>A wrapper</title>
<script type="importmap">{"imports": {
    "@segment/analytics-consent-tools": "/modules/@segment/analytics-consent-tools/dist/esm/index.js",
    "@segment/analytics-generic-utils": "/modules/@segment/analytics-generic-utils/dist/esm/index.js"}}</script>
{% load segment_fallback %}{% segment_snippet "Shop" %}
<script type="module">
import { createWrapper } from "@segment/analytics-consent-tools";
const decided = new Promise((decide) => (window.decide = decide));
createWrapper({
  shouldLoadSegment: async (context) => {
    if (!(await decided)) context.abort({ loadSegmentNormally: false });
  },
  getCategories: () => ({ Analytics: true }),
})(analytics).load("the wrapper's key");
</script></head></html>"""
"""As the README of `@segment/analytics-consent-tools` has it, and opt-in."""


def configure(request: HttpRequest) -> HttpResponse:
    """Other keys of SEGMENT_FALLBACK, from now on, beside those of ``project.py``."""
    from tests.e2e import project

    settings.SEGMENT_FALLBACK = {**project.SEGMENT_FALLBACK, **json.loads(request.body)}
    return HttpResponse(status=204)


def page(request: HttpRequest, template: str = PAGE, **context: Any) -> HttpResponse:
    return HttpResponse(engines["django"].from_string(template).render(context, request))


def with_nonce(request: HttpRequest, dynamic: bool) -> HttpResponseBase:
    """Inline code under a policy that allows none without a nonce: django-csp's, or Django's own where it has one."""
    strict: dict[str, Any] = {
        "default-src": ["'none'"],
        "script-src": ["'strict-dynamic'" if dynamic else settings.SEGMENT_FALLBACK["CDN_HOST"]],
        "img-src": ["'self'"],
        "connect-src": ["'self'", settings.SEGMENT_FALLBACK["API_HOST"]],
    }
    if request.GET.get("by") == "django":
        from django.middleware.csp import ContentSecurityPolicyMiddleware  # type: ignore[import-not-found,unused-ignore]
        from django.utils.csp import CSP  # type: ignore[import-not-found,unused-ignore]

        strict["script-src"].append(CSP.NONCE)
        settings.SECURE_CSP = strict
        own: Any = ContentSecurityPolicyMiddleware(page)(request)
        return cast(HttpResponseBase, own)
    from csp.constants import NONCE

    strict["script-src"].append(NONCE)
    return cast(HttpResponseBase, CSPMiddleware(csp(strict)(page))(request))


def log_in(request: HttpRequest, name: str) -> HttpResponse:
    users = auth.get_user_model().objects
    auth.login(request, users.get_or_create(username=name)[0])
    return HttpResponse(str(request.user.pk))


def log_out(request: HttpRequest) -> HttpResponse:
    auth.logout(request)
    return HttpResponse("out")


def module(request: HttpRequest, file: str) -> HttpResponse:
    """An ES module from npm; imports there leave the ending out."""
    for ending in (".js", "/index.js"):
        if (NODE_MODULES / (file + ending)).is_file():
            return HttpResponseRedirect(f"/modules/{file}{ending}")
    return HttpResponse((NODE_MODULES / file).read_bytes(), content_type="text/javascript")


urlpatterns = [
    path("configure/", configure),
    path("plain/", page),
    path("wrapper/", page, {"template": WRAPPER}),
    path("nonce/", with_nonce, {"dynamic": False}),
    path("nonce/dynamic/", with_nonce, {"dynamic": True}),
    path("log-in/<str:name>/", log_in),
    path("log-out/", log_out),
    path("modules/<path:file>", module),
]
