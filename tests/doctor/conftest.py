from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest
from django.core.servers.basehttp import ThreadedWSGIServer
from django.db import connections
from django.test.testcases import LiveServerThread
from django.urls import clear_url_caches

from segment_fallback.testing import LocalSegment
from tests.doctor import site
from tests.doctor.site import Application, Chosen, Edge, View

if TYPE_CHECKING:
    from pytest_django import Settings

Serve = Callable[..., str]


class QuickServer(ThreadedWSGIServer):
    """One that hears at once that it is to end, and waits for whom it still serves: they share our connection."""

    daemon_threads = False

    def serve_forever(self, poll_interval: float = 0.01) -> None:
        super().serve_forever(poll_interval)


class Thread(LiveServerThread):
    """Its ``static_handler`` is what wraps Django's handler: here, the edge."""

    server_class = QuickServer


def untouched(application: Application) -> Application:
    return application


@pytest.fixture
def serve(transactional_db: None, settings: Settings, local_segment: LocalSegment) -> Iterator[Serve]:
    """Serves the site with a view, keys of SEGMENT_FALLBACK, Django's settings and an edge; returns the page's URL."""
    with contextlib.ExitStack() as stack:

        def start(
            view: View = site.page, keys: dict[str, Any] | None = None, edge: Edge = untouched, **django_settings: Any
        ) -> str:
            settings.ROOT_URLCONF = "tests.doctor.site"
            settings.ALLOWED_HOSTS = ["127.0.0.1", "shop.example"]
            for name, value in django_settings.items():
                setattr(settings, name, value)
            settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, **(keys or {})}
            clear_url_caches()
            Chosen.view = staticmethod(view)
            return stack.enter_context(running(edge))

        yield start
    Chosen.view = staticmethod(site.page)


@contextlib.contextmanager
def running(edge: Edge) -> Iterator[str]:
    connection = connections["default"]
    connection.inc_thread_sharing()
    thread = Thread("127.0.0.1", cast(Any, edge), connections_override={"default": connection})
    thread.daemon = True
    thread.start()
    thread.is_ready.wait()
    try:
        assert thread.error is None
        yield f"http://127.0.0.1:{thread.port}/page/"
    finally:
        thread.terminate()
        connection.dec_thread_sharing()
