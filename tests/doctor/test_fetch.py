from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from segment_fallback.doctor import fetch as fetching
from segment_fallback.doctor.fetch import Answer, NoAnswer, fetch
from tests.doctor.conftest import Serve
from tests.doctor.site import Application, Respond


def test_page_that_hangs_is_a_timeout(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        time.sleep(0.5)
        return HttpResponse("late")

    monkeypatch.setattr(fetching, "READ_TIMEOUT", 0.1)
    answer = fetch(serve(view))
    assert isinstance(answer, NoAnswer)
    assert answer.problem == "timeout"


def test_page_that_drips_is_a_timeout(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def edge(site: Application) -> Application:
        def application(environ: dict[str, Any], respond: Respond) -> Iterable[bytes]:
            respond("200 OK", [("Content-Type", "text/html")])
            for _ in range(8):
                time.sleep(0.05)
                yield b"x" * 70_000

        return application

    monkeypatch.setattr(fetching, "TOTAL_TIMEOUT", 0.1)
    assert fetch(serve(edge=edge)) == NoAnswer("timeout", "not done in 0 s")


def test_bomb_is_cut(serve: Serve) -> None:
    import gzip

    bomb = gzip.compress(b"x" * 60_000_000)
    answer = fetch(serve(lambda request: HttpResponse(bomb, headers={"Content-Encoding": "gzip"})))
    assert isinstance(answer, Answer)
    assert answer.cut
    assert len(answer.body) == fetching.MAX_BYTES


def test_broken_gzip_is_told(serve: Serve) -> None:
    answer = fetch(serve(lambda request: HttpResponse(b"no gzip", headers={"Content-Encoding": "gzip"})))
    assert answer == NoAnswer("connection", "its gzip is broken")


def test_redirect_to_another_scheme_is_not_followed(serve: Serve) -> None:
    class Anywhere(HttpResponseRedirect):
        allowed_schemes = ["file"]

    answer = fetch(serve(lambda request: Anywhere("file:///etc/passwd")))
    assert answer == NoAnswer("redirects", "a redirect leads to what is no URL of http or https")


def test_netrc_is_not_read_and_cookies_are_not_kept(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password not-to-be-sent\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    seen: list[dict[str, str]] = []

    def view(request: HttpRequest) -> HttpResponse:
        seen.append(dict(request.headers))
        response = HttpResponse("x") if len(seen) > 1 else HttpResponseRedirect(request.path)
        response.set_cookie("a", "1")
        return response

    answer = fetch(serve(view))
    assert isinstance(answer, Answer)
    assert answer.cookies == {"a": "1"}
    assert not any({"Authorization", "Cookie"} & set(headers) for headers in seen)


@pytest.mark.parametrize(
    "url",
    ["", "shop.example", "http://", "ftp://shop.example/", "http://[::1", "http://a:99999/", "http://\x00/", "//a/"],
)
def test_what_is_no_url_is_told(url: str) -> None:
    answer = fetch(url)
    assert isinstance(answer, NoAnswer)
    assert answer.problem == "url"
