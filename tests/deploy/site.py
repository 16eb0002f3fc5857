"""A serverless site on what the template has made: settings, one page, and two handlers that web functions have.

From the environment: what deploy/aws/segment_settings.py reads, and SITE_SEGMENT (the local Segment's URL).
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Any

import django
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from mangum import Mangum
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Response

from segment_fallback import track

sys.path.append(str(Path(__file__).parents[2] / "deploy" / "aws"))

from segment_settings import SEGMENT_FALLBACK as ON_AWS
from segment_settings import SEGMENT_STORAGES as ON_S3

SECRET_KEY = "tests"
DEBUG = False
ALLOWED_HOSTS = ["shop.example"]
ROOT_URLCONF = __name__
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "segment_fallback"]
MIDDLEWARE = ["segment_fallback.middleware.SegmentMiddleware"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
SEGMENT_FALLBACK = {**ON_AWS, "API_HOST": os.environ["SITE_SEGMENT"]}
STORAGES = {**ON_S3}


def order(request: HttpRequest, number: str) -> HttpResponse:
    track(user_id="42", event="Order Completed", properties={"number": number})
    return HttpResponse("Thank you.")


urlpatterns = [path("order/<str:number>/", order), path("s/", include("segment_fallback.urls"))]


def by_mangum(event: dict[str, Any], context: object) -> dict[str, Any]:
    """As Mangum's documentation has it: one application a process."""
    answer: dict[str, Any] = asgi()(event, context)
    return answer


def as_by_zappa(event: dict[str, Any], context: object) -> dict[str, Any]:
    """What Zappa's handler does: werkzeug calls the application, and closes its response before it answers."""
    environ = EnvironBuilder(path=event["rawPath"], headers=event["headers"]).get_environ()
    with Response.from_app(wsgi(), environ) as response:
        return {"statusCode": response.status_code, "body": response.get_data(as_text=True)}


@functools.cache
def asgi() -> Any:
    django.setup()
    application: Any = get_asgi_application()
    return Mangum(application, lifespan="off")


@functools.cache
def wsgi() -> Any:
    django.setup()
    return get_wsgi_application()
