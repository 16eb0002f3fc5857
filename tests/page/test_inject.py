"""Which answers get the snippet, where in them, and that all the rest of them stays right."""

from __future__ import annotations

import gzip
import io
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import django
import pytest
from asgiref.sync import async_to_sync
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.template import RequestContext, Template
from django.test import AsyncClient, Client, RequestFactory
from django.urls import include, path
from django.views.decorators.http import condition

from segment_fallback.page.inject import (
    MAX_HELD,
    MAX_UNPACKED,
    Splice,
    _leave_packed,
    end_of_head,
    inject,
    is_document,
    without_snippet,
)
from segment_fallback.page.token import verify
from tests.page.html import parse
from tests.page.test_tag import LazyNonce, django_6_csp, django_csp_nonce

OURS = "segment_fallback.middleware.SegmentMiddleware"
GZIP = "django.middleware.gzip.GZipMiddleware"
CONDITIONAL = "django.middleware.http.ConditionalGetMiddleware"
COMMON = "django.middleware.common.CommonMiddleware"

BEFORE = "<!DOCTYPE html>\n<html><head><title>Schöner Laden</title>"
AFTER = "</head><body><p>" + "ein Text " * 100 + "</p></body></html>"
HTML = BEFORE + AFTER


@pytest.fixture(autouse=True)
def injecting(settings: Any) -> None:
    settings.SEGMENT_FALLBACK = {"WRITE_KEY": "tests-write-key", "INJECT": True}
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = [OURS, COMMON]
    _leave_packed.cache_clear()


def added(html: str, before: str = BEFORE, after: str = AFTER) -> str:
    """What stands between the two halves of the page."""
    assert html.startswith(before)
    assert html.endswith(after)
    return html[len(before) : len(html) - len(after)]


def page(request: HttpRequest, rest: str = "") -> HttpResponse:
    return HttpResponse(HTML)


async def async_page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(HTML)


def streamed(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(HTML[n : n + 7] for n in range(0, len(HTML), 7))


async def async_streamed(request: HttpRequest) -> StreamingHttpResponse:
    async def pieces() -> AsyncIterator[str]:
        for n in range(0, len(HTML), 7):
            yield HTML[n : n + 7]

    return StreamingHttpResponse(pieces())


def tagged(request: HttpRequest) -> HttpResponse:
    template = Template("{% load segment_fallback %}" + BEFORE + "{% segment_snippet %}" + AFTER)
    return HttpResponse(template.render(RequestContext(request)))


@condition(etag_func=lambda request: '"page-1"')
def conditional(request: HttpRequest) -> HttpResponse:
    return HttpResponse(HTML)


@without_snippet
def left_alone(request: HttpRequest) -> HttpResponse:
    return HttpResponse(HTML)


@without_snippet
async def async_left_alone(request: HttpRequest) -> HttpResponse:
    return HttpResponse(HTML)


def file(request: HttpRequest) -> FileResponse:
    return FileResponse(io.BytesIO(HTML.encode()), filename="page.html", headers={"ETag": '"file"'})


urlpatterns = [
    path("s/", include("segment_fallback.urls")),
    path("async/", async_page),
    path("streamed/", streamed),
    path("async-streamed/", async_streamed),
    path("tagged/", tagged),
    path("conditional/", conditional),
    path("left-alone/", left_alone),
    path("async-left-alone/", async_left_alone),
    path("file/", file),
    path("admin/", include(([path("", page)], "admin"), namespace="backstage")),
    path("<path:rest>", page),
]

Get = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def get(request: pytest.FixtureRequest) -> Get:
    """A request by WSGI's handler and by ASGI's; ``body()`` reads either's answer."""
    return Client().get if request.param == "sync" else async_to_sync(AsyncClient().get)


def body(response: Any) -> bytes:
    if not response.streaming:
        content: bytes = response.content
        return content
    if not response.is_async:
        return b"".join(response.streaming_content)

    async def read() -> bytes:
        return b"".join([piece async for piece in response.streaming_content])

    return async_to_sync(read)()


def injected(response: HttpResponseBase, request: HttpRequest | None = None) -> HttpResponseBase:
    return inject(request or RequestFactory().get("/"), response)


# Pages


@pytest.mark.parametrize("url", ["/shop/", "/async/"])
def test_page_gets_the_snippet_last_in_its_head(get: Get, url: str) -> None:
    response = get(url)
    found = parse(added(response.content.decode()))
    assert [name for name, _ in found.tags] == ["script", "noscript", "picture", "source", "img"]
    assert verify(found.config["t"]).path == url
    assert response["Content-Length"] == str(len(response.content))


@pytest.mark.parametrize(
    "url",
    [
        "/streamed/",
        "/file/",
        pytest.param("/async-streamed/", id="async"),
    ],
)
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
def test_streamed_page_gets_the_same(get: Get, url: str) -> None:
    response = get(url)
    assert verify(parse(added(body(response).decode())).config["t"]).path == url
    assert "Content-Length" not in response


def test_snippet_is_the_one_that_the_tag_renders(get: Get) -> None:
    tag = get("/tagged/").content.decode()
    assert added(tag).replace(verify_token(tag), "") == added(get("/x/").content.decode()).replace(
        verify_token(get("/x/").content.decode()), ""
    )


def verify_token(html: str) -> str:
    token: str = parse(added(html)).config["t"]
    return token


@pytest.mark.parametrize("external", [False, True])
def test_page_that_has_the_snippet_gets_no_other(get: Get, settings: Any, external: bool) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "EXTERNAL_SCRIPT": external}
    html = get("/tagged/").content.decode()
    assert html.count("<noscript>") == 1
    assert injected(HttpResponse(html)).content.decode() == html  # type: ignore[attr-defined]
    streamed = StreamingHttpResponse([html[:400], html[400:]])
    assert body(injected(streamed)).decode() == html


def test_snippet_of_a_retired_secret_is_recognised(settings: Any) -> None:
    html = body(injected(HttpResponse(HTML)))
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new", [settings.SECRET_KEY]
    assert body(injected(HttpResponse(html))) == html


@pytest.mark.parametrize("headers", [{"hx-request": "true"}, {"turbo-frame": "cart"}, {}])
@pytest.mark.parametrize("text", ["<div>a fragment</div>", "<turbo-frame id=cart></turbo-frame>", "", "<b></head></b>"])
def test_fragment_stays_as_it_is(headers: dict[str, str], text: str) -> None:
    request = RequestFactory().get("/", headers=headers)
    for made in (HttpResponse, StreamingHttpResponse):
        response = made([text])
        assert body(injected(response, request)) == text.encode()


@pytest.mark.parametrize("headers", [{"hx-request": "true", "hx-boosted": "true"}, {"turbo-frame": "cart"}])
def test_whole_page_is_the_same_for_whoever_asks(get: Get, headers: dict[str, str]) -> None:
    """Else a cache that does not tell such requests apart would keep a page without the snippet, for everybody."""
    assert get("/shop/", headers=headers).content == get("/shop/").content
    assert "Vary" not in get("/shop/")


OTHERS: dict[str, Callable[[], HttpResponseBase]] = {
    "json": lambda: HttpResponse(HTML, content_type="application/json"),
    "plain text": lambda: HttpResponse(HTML, content_type="text/plain"),
    "xhtml": lambda: HttpResponse(HTML, content_type="application/xhtml+xml"),
    "no type": lambda: HttpResponse(HTML, content_type=""),
    "not found": lambda: HttpResponse(HTML, status=404),
    "created": lambda: HttpResponse(HTML, status=201),
    "part": lambda: HttpResponse(HTML, status=206),
    "redirect": lambda: HttpResponse(HTML, status=302, headers={"Location": "/"}),
    "failure": lambda: HttpResponse(HTML, status=500),
    "not modified": lambda: HttpResponse(status=304, headers={"ETag": '"a"'}),
    "download": lambda: HttpResponse(HTML, headers={"Content-Disposition": 'attachment; filename="a.html"'}),
    "download, shouting": lambda: HttpResponse(HTML, headers={"Content-Disposition": "ATTACHMENT"}),
    "file": lambda: FileResponse(io.BytesIO(HTML.encode()), as_attachment=True, filename="a.html"),
    "UTF-16": lambda: HttpResponse(HTML, content_type="text/html; charset=utf-16"),
    "UTF-16, streamed": lambda: StreamingHttpResponse([HTML], content_type="text/html; charset=utf-16"),
    "no such charset": lambda: HttpResponse(HTML.encode(), content_type="text/html; charset=nope"),
    "no head's end": lambda: HttpResponse("<!doctype html><p>no head"),
    "unclosed script": lambda: HttpResponse("<!doctype html><head><script></head><body>"),
    "brotli": lambda: HttpResponse(HTML.encode(), headers={"Content-Encoding": "br"}),
    "not really gzip": lambda: HttpResponse(HTML.encode(), headers={"Content-Encoding": "gzip"}),
    "gzip, cut": lambda: HttpResponse(gzip.compress(HTML.encode())[:-9], headers={"Content-Encoding": "gzip"}),
    "gzip, huge": lambda: HttpResponse(
        gzip.compress(HTML.encode() + b" " * MAX_UNPACKED), headers={"Content-Encoding": "gzip"}
    ),
    "opted out": lambda: left_alone(RequestFactory().get("/")),
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_answer_that_is_no_page_stays_as_it_is(make: Callable[[], HttpResponseBase]) -> None:
    expected = make()
    response = injected(make())
    assert body(response) == body(expected)
    assert {**response.headers, "Date": ""} == {**expected.headers, "Date": ""}
    assert response.status_code == expected.status_code


@pytest.mark.parametrize("url", ["/admin/", "/left-alone/", "/async-left-alone/"])
def test_pages_of_the_admin_and_of_decorated_views_stay_as_they_are(get: Get, url: str) -> None:
    assert get(url).content.decode() == HTML


@pytest.mark.parametrize("keys", [{"INJECT": False}, {"WRITE_KEY": ""}])
def test_nothing_is_added_where_it_is_off(get: Get, settings: Any, keys: dict[str, Any]) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, **keys}
    for url in ("/shop/", "/streamed/"):
        assert body(get(url)).decode() == HTML


def test_page_goes_without_where_something_fails(
    get: Get, settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "LOAD_OPTIONS": {"a": {1, 2}, "b": object()}}
    with caplog.at_level(logging.ERROR, "segment_fallback"):
        response = get("/shop/")
    assert (response.status_code, response.content.decode()) == (200, HTML)
    assert response["Content-Length"] == str(len(response.content))
    assert "could not be given the snippet" in caplog.text


@pytest.mark.django_db
@pytest.mark.parametrize("url", ["/shop/", "/streamed/"])
def test_page_gains_no_header_and_no_cookie_and_costs_no_query(
    get: Get, settings: Any, url: str, django_assert_num_queries: Any
) -> None:
    settings.MIDDLEWARE = [
        OURS,
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ]
    with django_assert_num_queries(0):
        response = get(url, headers={"cookie": "sessionid=somebody"})
    assert "<noscript>" in body(response).decode()
    assert set(response.headers) == {"Content-Type"}
    assert not response.cookies


# Where the head ends


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<html><head>", "</head><body>"),
        ("<head>", "</HEAD\n><BODY>"),
        ("<html><title>a</title>", "<body class=a>"),
        ("<html><title></head></title>", "</head>"),
        ("<html><script>'</head>'</script>", "</head>"),
        ("<html><SCRIPT src='a>b'>'<body>'</SCRIPT >", "</head>"),
        ("<html><style>/*</head>*/</style>", "</head>"),
        ("<html><!-- </head> <body> -->", "</head>"),
        ("<html><!-- <script> -->", "</head>"),
        ("<html><template><body></template><noscript><body></noscript>", "</head>"),
        ("<html><script-like></script-like></headline><bodyguard>", "</head>"),
        ("<html><script>'<!--'</script>", "</head><!-- -->"),
    ],
)
def test_end_of_head(before: str, after: str) -> None:
    assert end_of_head((before + after).encode()) == len(before)


@pytest.mark.parametrize("text", ["", "<html><head>", "<html><!-- </head>", "<script></head>", "</headline>", "</head"])
def test_end_of_head_that_is_not_there(text: str) -> None:
    assert end_of_head(text.encode()) is None


@pytest.mark.parametrize("text", ["<!--" * 50_000, "<script>" * 30_000, "<script></scrip" * 20_000, "<" * 300_000])
def test_end_of_head_is_searched_in_linear_time(text: str) -> None:
    started = time.perf_counter()
    assert end_of_head(text.encode()) is None
    assert time.perf_counter() - started < 2, "some milliseconds, where nothing else runs"


@pytest.mark.parametrize(
    ("text", "document"),
    [
        ("<!DOCTYPE html><html>", True),
        ("\ufeff \n<html lang=de>", True),
        ("<!-- saved --><?xml version='1.0'?>\n<!doctype HTML PUBLIC>", True),
        ("<head>", True),
        ("", None),
        ("\n ", None),
        ("<!DOC", None),
        ("<!-- not closed", None),
        ("<?xml", None),
        ("<div>", False),
        ("text", False),
        ("<html", None),
        ("<header>", False),
        ("<htmx>", False),
        ('{"html": "<html>"}', False),
    ],
)
def test_document_is_told_by_its_beginning(text: str, document: bool | None) -> None:
    assert is_document(text.encode()) is document


@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-1", "windows-1252", "shift_jis", "euc-jp", "gb18030"])
def test_page_keeps_its_charset(charset: str) -> None:
    text = "価格" if charset in ("shift_jis", "euc-jp", "gb18030") else "Schöner Laden"
    before = f"<!DOCTYPE html><head><title>{text}</title>"
    response = HttpResponse(before + AFTER, content_type=f"text/html; charset={charset}")
    assert parse(added(body(injected(response)).decode(charset), before)).script


# Streams


def splice(*pieces: bytes, snippet: bytes = b"[S]") -> bytes:
    made = Splice(snippet, [b"MARK"])
    return b"".join([*(made.feed(piece) for piece in pieces), made.rest()])


PLAIN = b"<!doctype html><head></head><body>x</body>"


@pytest.mark.parametrize("size", range(1, len(PLAIN) + 1))
def test_stream_is_spliced_wherever_it_is_split(size: int) -> None:
    pieces = [PLAIN[n : n + size] for n in range(0, len(PLAIN), size)]
    assert splice(*pieces) == PLAIN.replace(b"</head>", b"[S]</head>")


@pytest.mark.parametrize(
    "text", [b"", b"<!doc", b"<!doctype html><head>", b"<p></head>", b"<html>MARK</head>", b"<html></head"]
)
def test_stream_without_a_place_is_whole(text: bytes) -> None:
    assert splice(*(text[n : n + 1] for n in range(len(text)))) == text
    assert splice(text) == text


def test_stream_is_held_back_no_longer_than_needed() -> None:
    made = Splice(b"[S]", [])
    assert made.feed(b"<html><head>") == b""
    assert made.feed(b"</head>") == b"<html><head>[S]</head>"
    assert made.feed(b"<p></head>") == b"<p></head>"
    assert Splice(b"[S]", []).feed(b"<p>") == b"<p>"


def test_stream_holds_back_a_bounded_number_of_bytes() -> None:
    made, piece, held = Splice(b"[S]", []), b"<link>" * 100, 0
    assert made.feed(b"<html>") == b""
    while not (sent := made.feed(piece)):
        held += len(piece)
        assert held <= MAX_HELD
    assert MAX_HELD < len(sent) <= MAX_HELD + len(piece)
    assert made.feed(b"</head>") == b"</head>"


def test_stream_of_many_small_pieces_takes_linear_time() -> None:
    started = time.perf_counter()
    text = b"<html>" + b"a" * (MAX_HELD - 6) + b"</head>"
    assert splice(*(text[n : n + 1] for n in range(len(text)))) == text
    assert time.perf_counter() - started < 3


def test_stream_is_read_as_it_is_sent() -> None:
    read: list[int] = []

    def pieces() -> Iterator[bytes]:
        for n in range(3):
            read.append(n)
            yield [b"<html>", b"</head>", b"x"][n]

    sent = iter(injected(StreamingHttpResponse(pieces())))
    assert read == []
    assert next(sent).endswith(b"</head>")
    assert read == [0, 1]


def test_file_is_not_handed_to_the_server_past_us() -> None:
    response = FileResponse(io.BytesIO(HTML.encode()), filename="page.html")
    assert response.file_to_stream is not None
    assert injected(response).file_to_stream is None  # type: ignore[attr-defined]


def test_stream_is_closed_with_the_answer() -> None:
    opened = io.BytesIO(HTML.encode())
    response = injected(FileResponse(opened, filename="page.html"))
    next(iter(response))
    for closer in response._resource_closers:  # type: ignore[attr-defined]
        closer()
    assert opened.closed


def test_stream_that_fails_fails_as_without_us() -> None:
    def pieces() -> Iterator[bytes]:
        yield b"<html>"
        raise RuntimeError("the site's own")

    with pytest.raises(RuntimeError, match="the site's own"):
        body(injected(StreamingHttpResponse(pieces())))


# Packed answers


def test_page_packed_by_a_middleware_below_is_packed_again(get: Get, settings: Any) -> None:
    settings.MIDDLEWARE = [OURS, GZIP, COMMON]
    response = get("/shop/", headers={"accept-encoding": "gzip"})
    assert response["Content-Encoding"] == "gzip"
    assert response["Content-Length"] == str(len(response.content))
    assert parse(added(gzip.decompress(response.content).decode())).script


def test_page_packed_by_a_middleware_above_is_packed_once(get: Get, settings: Any) -> None:
    settings.MIDDLEWARE = [GZIP, OURS, COMMON]
    for url in ("/shop/", "/streamed/"):
        packed = body(get(url, headers={"accept-encoding": "gzip"}))
        assert parse(added(gzip.decompress(packed).decode())).script


def test_packed_stream_is_left_alone_and_that_is_said_once(
    get: Get, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.MIDDLEWARE = [OURS, GZIP]
    with caplog.at_level(logging.WARNING, "segment_fallback"):
        for _ in range(2):
            assert gzip.decompress(body(get("/streamed/", headers={"accept-encoding": "gzip"}))).decode() == HTML
    assert caplog.text.count("INJECT leaves streamed pages alone") == 1


# Conditional requests


@pytest.mark.parametrize("url", ["/shop/", "/conditional/", "/file/"])
def test_etag_is_that_of_the_page_with_the_snippet(get: Get, settings: Any, url: str) -> None:
    settings.MIDDLEWARE = [OURS, CONDITIONAL, COMMON]
    first = get(url)
    body(first)
    etag = first["ETag"]
    assert get(url)["ETag"] == etag
    again = get(url, headers={"if-none-match": etag})
    assert (again.status_code, again["ETag"], body(again)) == (304, etag, b"")
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "PATIENCE": 7}
    other = get(url, headers={"if-none-match": etag})
    assert other.status_code == 200
    assert other["ETag"] != etag
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "INJECT": False}
    assert etag.startswith(get(url)["ETag"][:-1])
    assert get(url, headers={"if-none-match": etag}).status_code == 200


def test_weak_etag_stays_weak(get: Get, settings: Any) -> None:
    settings.MIDDLEWARE = [OURS, GZIP, CONDITIONAL]
    headers = {"accept-encoding": "gzip"}
    etag = get("/shop/", headers=headers)["ETag"]
    assert etag.startswith('W/"')
    assert get("/shop/", headers={**headers, "if-none-match": etag}).status_code == 304


def test_site_that_answers_304_by_date_is_believed() -> None:
    request = RequestFactory().get("/", headers={"if-modified-since": "Mon, 01 Jan 2035 00:00:00 GMT"})
    response = HttpResponse(HTML, headers={"ETag": '"a"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"})
    assert injected(response, request).status_code == 200


@pytest.mark.parametrize("url", ["/shop/", "/async/", "/conditional/"])
def test_head_says_what_get_would(settings: Any, url: str) -> None:
    client = Client()
    got, head = client.get(url), client.head(url)
    assert dict(head.headers) == dict(got.headers)
    assert head.content == b""


def test_head_of_a_view_that_renders_nothing_promises_no_length() -> None:
    response = HttpResponse(headers={"Content-Length": "1000"})
    assert "Content-Length" not in injected(response, RequestFactory().head("/"))


# Content-Security-Policy


def policy_and_nonce(get: Get) -> tuple[str, str]:
    response = get("/shop/")
    nonce = parse(added(response.content.decode())).attributes("script")["nonce"]
    assert nonce
    return response["Content-Security-Policy"], nonce


@pytest.mark.parametrize("first", [False, True], ids=["below", "above"])
def test_script_carries_the_nonce_of_django_csp(get: Get, settings: Any, first: bool) -> None:
    csp = "csp.middleware.CSPMiddleware"
    settings.MIDDLEWARE = [csp, OURS] if first else [OURS, csp]
    settings.CONTENT_SECURITY_POLICY = {"DIRECTIVES": {"script-src": ["'self'", django_csp_nonce()]}}
    policy, nonce = policy_and_nonce(get)
    assert f"'nonce-{nonce}'" in policy


def test_script_carries_the_nonce_of_django_6(get: Get, settings: Any) -> None:
    csp = f"{django_6_csp.__module__}.django_6_csp"
    if django.VERSION >= (6, 0):
        settings.SECURE_CSP = {"script-src": ["'self'", "<CSP_NONCE_SENTINEL>"]}
        csp = "django.middleware.csp.ContentSecurityPolicyMiddleware"
    settings.MIDDLEWARE = [OURS, csp]
    policy, nonce = policy_and_nonce(get)
    assert f"'nonce-{nonce}'" in policy


def test_script_carries_the_nonce_of_a_policy_written_by_hand() -> None:
    response = HttpResponse(HTML, headers={"Content-Security-Policy": "script-src 'self' 'nonce-a1+/='"})
    assert parse(added(body(injected(response)).decode())).attributes("script") == {"nonce": "a1+/="}


def test_policy_without_a_nonce_is_not_given_one() -> None:
    request = RequestFactory().get("/")
    request._csp_nonce = LazyNonce(lambda: "late")  # type: ignore[attr-defined]
    response = HttpResponse(HTML, headers={"Content-Security-Policy": "script-src 'self'"})
    assert parse(added(body(injected(response, request)).decode())).attributes("script") == {}
