"""Pages that navigate without a page load, for ``test_navigation.py``: ``/to/<how>/<where>/<page>/``.

``how``: ``turbo``, ``htmx2``, ``htmx4`` (from npm), or a router of a few lines, ``router``, or ``late``, which sets the
title 100 ms afterwards. ``where`` the snippet stands: ``head`` or ``body``, or ``first``, in the head of page one only.
"""

from __future__ import annotations

import time
from pathlib import Path

from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.urls import path

TITLES = {"one": "First page", "two": "Second “page” & é", "three": "Third page"}
CANONICAL = "https://shop.example/first/"
"""Of page one."""
LIBRARIES = {
    "turbo": "@hotwired/turbo/dist/turbo.es2017-umd.js",
    "htmx2": "htmx2/dist/htmx.js",
    "htmx4": "htmx.org/dist/htmx.js",
}
NODE_MODULES = Path(__file__).parents[2] / "node_modules"

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{{ title }}</title>
{% load segment_fallback %}{% if canonical %}<link rel="canonical" href="{{ canonical }}">{% endif %}
{% if where == "head" or where == "first" and name == "one" %}
{% segment_snippet label category="Nav" number=number %}{% endif %}
<script src="/to/library/{{ how }}"></script>
</head>
<body hx-boost{% if how == 'htmx4' %}:inherited{% endif %}="true">
{% if where == "body" %}{% segment_snippet label category="Nav" number=number %}{% endif %}
<h1>{{ title }}</h1>
{% for page in pages %}<a id="{{ page }}" href="../{{ page }}/?{{ query }}">{{ page }}</a>{% endfor %}
<a id="slow" href="../two/?{{ query }}&slow">slow</a><a id="hash" href="#part">part</a>
<button id="swap" hx-get="/to/fragment" hx-target="#spot">swap</button><p id="spot"></p>
</body>
</html>"""

ROUTER = """
const TITLES = %s, LATE = %d;
function show() {
    const title = TITLES[location.pathname.split("/")[4]];
    const put = () => { document.title = title; };
    LATE ? setTimeout(put, LATE) : put();
    document.querySelector("h1").textContent = title;
}
addEventListener("popstate", show);
addEventListener("click", (event) => {
    if (event.target.id == "hash" || event.target.tagName != "A") return;
    event.preventDefault();
    history.pushState({}, "", event.target.href);
    show();
});
"""


def page(request: HttpRequest, how: str, where: str, name: str) -> HttpResponse:
    query = request.META["QUERY_STRING"]
    if query.endswith("&slow"):
        time.sleep(3)
    context = {
        "how": how,
        "where": where,
        "name": name,
        "title": TITLES[name],
        "label": f"Page {name}",
        "number": list(TITLES).index(name),
        "canonical": CANONICAL if name == "one" else "",
        "pages": TITLES,
        "query": query.removesuffix("&slow"),
    }
    return HttpResponse(engines["django"].from_string(PAGE).render(context, request))


def fragment(request: HttpRequest) -> HttpResponse:
    """What htmx puts into a page; no page of its own."""
    return HttpResponse("<b>swapped</b>")


def library(request: HttpRequest, name: str) -> HttpResponse:
    if name in LIBRARIES:
        script = (NODE_MODULES / LIBRARIES[name]).read_text("utf-8")
    else:
        script = ROUTER % (TITLES, 100 if name == "late" else 0)
    return HttpResponse(script, content_type="text/javascript; charset=utf-8")


urlpatterns = [
    path("fragment", fragment),
    path("library/<str:name>", library),
    path("<str:how>/<str:where>/<str:name>/", page),
]
