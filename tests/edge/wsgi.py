"""What gunicorn runs: the site, and before it a log of every request that reaches Django at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.wsgi import get_wsgi_application

django_application = get_wsgi_application()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    from tests.edge.project import write

    names = ("COOKIE", "X_FORWARDED_FOR", "X_FORWARDED_PROTO", "X_FORWARDED_HOST")
    headers = {name: environ.get(f"HTTP_{name}") for name in names}
    query = environ["QUERY_STRING"]
    url = environ["PATH_INFO"] + (f"?{query}" if query else "")
    write("requests", method=environ["REQUEST_METHOD"], url=url, **headers)
    return django_application(environ, start_response)
