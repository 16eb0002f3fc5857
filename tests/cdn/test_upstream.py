from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from segment_fallback import __version__
from segment_fallback.cdn import upstream
from segment_fallback.cdn.store import Missing, Unavailable
from segment_fallback.testing import Answer, LocalSegment
from tests.cdn.conftest import LIBRARY_UPSTREAM, WRITE_KEY, script_url

JS = {"Content-Type": "text/javascript; charset=utf-8"}


def test_request_upstream_has_exactly_the_headers_on_the_list(segment: LocalSegment) -> None:
    client = Client()
    client.cookies["sessionid"] = "secret"
    visitors = {
        "authorization": "Basic c2VjcmV0",
        "x-forwarded-for": "192.0.2.1",
        "forwarded": "for=192.0.2.1",
        "referer": "https://shop.example/private/",
        "origin": "https://shop.example",
        "user-agent": "a browser",
        "accept": "text/secret",
        "accept-language": "de",
        "accept-encoding": "br, gzip",
        "if-none-match": '"theirs"',
        "range": "bytes=0-1",
        "cache-control": "no-cache",
        "sec-gpc": "1",
    }
    assert client.get(script_url(), headers=visitors).status_code == 200
    [request] = segment.requests
    assert dict(request.headers) == {
        "Host": segment.url.removeprefix("http://"),
        "User-Agent": f"django-segment-fallback/{__version__}",
        "Accept": "*/*",
        "Accept-Encoding": "gzip",
    }


def test_request_to_revalidate_has_the_etag_too(segment: LocalSegment) -> None:
    segment.answer_with(Answer(status=304), path="/")
    assert upstream.fetch(segment.url + LIBRARY_UPSTREAM, '"1"') is None
    assert set(segment.requests[0].headers) == {"Host", "User-Agent", "Accept", "Accept-Encoding", "If-None-Match"}
    assert segment.requests[0].headers["If-None-Match"] == '"1"'


def test_cookie_of_the_cdn_does_not_come_back(segment: LocalSegment) -> None:
    segment.answer_with(Answer(status=200, headers={**JS, "Set-Cookie": "a=1; Path=/"}, body="let a"), path="/")
    for _ in range(2):
        upstream.fetch(segment.url + LIBRARY_UPSTREAM)
    assert [request.headers["Cookie"] for request in segment.requests] == [None, None]


def test_netrc_is_not_read(segment: LocalSegment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    upstream.fetch(segment.url + LIBRARY_UPSTREAM)
    assert segment.requests[0].headers["Authorization"] is None


def test_proxy_of_the_environment_is_used(segment: LocalSegment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", segment.url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    url = f"http://cdn.example/v1/projects/{WRITE_KEY}/settings"
    with pytest.raises(Missing):
        upstream.fetch(url)  # the proxy has no such path
    assert [request.path for request in segment.requests] == [url]


def test_answer_that_trickles_is_given_up(segment: LocalSegment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "TOTAL_TIMEOUT", -1.0)
    with pytest.raises(Unavailable, match="not done"):
        upstream.fetch(segment.url + LIBRARY_UPSTREAM)


def test_body_up_to_the_cap_is_taken(segment: LocalSegment) -> None:
    body = b"a" * upstream.MAX_BYTES
    segment.answer_with(Answer(status=200, headers=JS, body=body), path="/")
    fetched = upstream.fetch(segment.url + LIBRARY_UPSTREAM)
    assert fetched is not None
    assert (fetched.body, fetched.content_type) == (body, "text/javascript")


def test_failure_does_not_tell_the_url(segment: LocalSegment) -> None:
    segment.stop()
    with pytest.raises(Unavailable) as caught:
        upstream.fetch(segment.url + LIBRARY_UPSTREAM)
    assert WRITE_KEY not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_child_of_a_fork_has_a_session_of_its_own(segment: LocalSegment) -> None:
    upstream.fetch(segment.url + LIBRARY_UPSTREAM)
    sessions: Any = upstream._session
    before = sessions()
    assert sessions() is before
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, str(sessions.cache_info().currsize).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 9) == b"0"
