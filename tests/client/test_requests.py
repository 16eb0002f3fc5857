"""Calls within a request: whose they are, and when they are written. By WSGI's handler and by ASGI's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.contrib.auth.models import User
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.db import transaction
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncRequestFactory, Client, RequestFactory
from django.urls import path

import segment_fallback
from segment_fallback.buffers import buffers
from segment_fallback.buffers.memory import MemoryBuffer, Store
from segment_fallback.intake import visitor
from segment_fallback.outcome import Outcome
from segment_fallback.testing import CapturedMessages
from tests.intake.visits import CHROMIUM, outcomes, waiting

STORE = Store()


class SharedBuffer(MemoryBuffer):
    """One store for all threads and handlers of a test."""

    def __init__(self) -> None:
        super().__init__(store=STORE)


def depth() -> int:
    return buffers["default"].depth()


Asks = Callable[[Any], Any]
does: dict[str, Asks] = {}
"""What the views do now."""


def sync_view(request: HttpRequest) -> HttpResponse:
    result = does["now"](request)
    return result if isinstance(result, HttpResponse | StreamingHttpResponse) else HttpResponse("page")  # type: ignore[return-value]


async def async_view(request: HttpRequest) -> HttpResponse:
    result = does["now"](request)
    if asyncio.iscoroutine(result):
        result = await result
    return result if isinstance(result, HttpResponse | StreamingHttpResponse) else HttpResponse("page")  # type: ignore[return-value]


urlpatterns = [path("sync/", sync_view), path("async/", async_view)]


@pytest.fixture(autouse=True)
def site(settings: Any) -> Iterator[None]:
    settings.ROOT_URLCONF = __name__
    settings.SEGMENT_FALLBACK = {
        **settings.SEGMENT_FALLBACK,
        "BUFFERS": {"default": {"BACKEND": f"{__name__}.SharedBuffer"}},
    }
    yield
    STORE.__init__()  # type: ignore[misc]


def change(settings: Any, **keys: Any) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, **keys}


communicate: Any = ApplicationCommunicator


class Answer:
    """What a server sees: the depth of the buffer when the body had been sent, and after it had closed."""

    body = b""
    before = -1
    after = -1


def by_wsgi(url: str, **headers: str) -> Answer:
    answer = Answer()
    extra: Any = headers
    environ = RequestFactory().get(url, **extra).environ
    response: Any = WSGIHandler()(environ, lambda *args: lambda data: None)
    answer.body = b"".join(response)
    answer.before = depth()
    response.close()
    answer.after = depth()
    return answer


def by_asgi(url: str, **headers: str) -> Answer:
    return async_to_sync(arequest)(url, **headers)


async def arequest(url: str, **headers: str) -> Answer:
    answer = Answer()
    fields = {key.removeprefix("HTTP_").replace("_", "-").lower(): value for key, value in headers.items()}
    scope = AsyncRequestFactory()._base_scope(path=url, method="GET")  # type: ignore[attr-defined]
    scope["headers"] = [(key.encode(), value.encode()) for key, value in {"host": "testserver", **fields}.items()]
    scope["client"] = ("203.0.113.7", 1)
    application = communicate(ASGIHandler(), scope)
    await application.send_input({"type": "http.request", "body": b"", "more_body": False})
    await application.receive_output(10)
    while True:
        part = await application.receive_output(10)
        answer.body += part.get("body", b"")
        if not part.get("more_body"):
            break
    answer.before = depth()
    await application.wait(10)
    answer.after = depth()
    return answer


REQUESTS = [(by_wsgi, "/sync/"), (by_wsgi, "/async/"), (by_asgi, "/sync/"), (by_asgi, "/async/")]


@pytest.fixture(params=REQUESTS, ids=lambda way: f"{way[0].__name__}{way[1][:-1]}")
def ask(request: pytest.FixtureRequest) -> Callable[..., Answer]:
    """One request whose view does this."""
    handler, url = request.param

    def ask(what: Asks, **headers: str) -> Answer:
        does["now"] = what
        return handler(url, **headers)  # type: ignore[no-any-return]

    return ask


VISITOR = {"HTTP_COOKIE": "ajs_anonymous_id=visitor-1", **CHROMIUM}


@pytest.mark.django_db
def test_messages_of_a_request_are_written_together_after_the_response(
    ask: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[int] = []
    write = MemoryBuffer.write

    def noting(self: Any, messages: Any) -> None:
        writes.append(len(messages))
        write(self, messages)

    monkeypatch.setattr(MemoryBuffer, "write", noting)

    def view(request: Any) -> None:
        assert segment_fallback.track("u", "one")[0]
        assert request.segment.track("two")[0]
        assert depth() == 0

    answer = ask(view, **VISITOR)
    assert answer.body == b"page"
    assert answer.after == 2
    assert writes == [2]


@pytest.mark.django_db
@pytest.mark.parametrize("url", ["/sync/", "/async/"])
def test_response_is_sent_before_anything_is_written_by_wsgi(url: str) -> None:
    does["now"] = lambda request: segment_fallback.track("u", "E")
    answer = by_wsgi(url)
    assert (answer.before, answer.after) == (0, 1)


@pytest.mark.django_db
def test_response_is_sent_before_anything_is_written_by_asgi(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = threading.Event()
    order: list[str] = []
    send_response, write = ASGIHandler.send_response, MemoryBuffer.write

    async def sending(self: Any, *args: Any) -> None:
        await send_response(self, *args)
        order.append("sent")
        sent.set()

    def writing(self: Any, messages: Any) -> None:
        order.append("written")
        write(self, messages)

    monkeypatch.setattr(ASGIHandler, "send_response", sending)
    monkeypatch.setattr(MemoryBuffer, "write", writing)
    does["now"] = lambda request: segment_fallback.track("u", "E")
    assert by_asgi("/async/").after == 1
    assert order == ["sent", "written"]


@pytest.mark.django_db
def test_visitor_comes_by_himself(ask: Callable[..., Answer], segment_messages: CapturedMessages) -> None:
    ask(lambda request: segment_fallback.track(event="E", properties={"a": 1}), **VISITOR)
    [message] = segment_messages.messages
    assert (message["anonymousId"], message["userId"]) == ("visitor-1", None)
    context = message["context"]
    assert context["userAgent"] == CHROMIUM["HTTP_USER_AGENT"]
    assert context["locale"] == "en-GB"
    assert context["ip"] in ("127.0.0.1", "203.0.113.7")
    assert context["page"]["path"] in ("/sync/", "/async/")
    assert context["page"]["url"] == f"http://testserver{context['page']['path']}"
    assert "title" not in context["page"]
    assert "campaign" not in context


@pytest.mark.django_db
def test_page_call_tells_of_the_page(segment_messages: CapturedMessages) -> None:
    does["now"] = lambda request: request.segment.page(name="Shop", properties={"path": "/mine/"})
    by_wsgi("/sync/?utm_source=mail&utm_campaign=may", **{**VISITOR, "HTTP_REFERER": "https://a.example/"})
    [message] = segment_messages.messages
    assert message["context"]["campaign"] == {"source": "mail", "name": "may"}
    assert message["name"] == "Shop"
    assert message["properties"] == {
        "path": "/mine/",
        "url": "http://testserver/sync/?utm_source=mail&utm_campaign=may",
        "search": "?utm_source=mail&utm_campaign=may",
        "referrer": "https://a.example/",
    }


@pytest.mark.django_db
def test_page_of_a_scripts_request_is_the_one_that_asks(segment_messages: CapturedMessages) -> None:
    does["now"] = lambda request: request.segment.track("E")
    script = {"HTTP_SEC_FETCH_DEST": "empty"}
    by_wsgi("/sync/?api=1", **VISITOR, **script, HTTP_REFERER="http://testserver/shop/?a=b")
    by_wsgi("/sync/?api=1", **VISITOR, **script, HTTP_REFERER="https://other.example/shop/?a=b")
    own, others = (message["context"]["page"] for message in segment_messages.messages)
    assert own == {"path": "/shop/", "search": "?a=b", "url": "http://testserver/shop/?a=b", "referrer": ""}
    assert (others["path"], others["referrer"]) == ("/sync/", "https://other.example/shop/?a=b")


@pytest.mark.django_db
def test_what_the_caller_gives_goes_before(segment_messages: CapturedMessages) -> None:
    does["now"] = lambda request: request.segment.track("E", context={"ip": "0.0.0.0", "locale": "de"}, user_id=5)
    by_wsgi("/sync/", **VISITOR)
    [message] = segment_messages.messages
    assert (message["context"]["ip"], message["context"]["locale"]) == ("0.0.0.0", "de")
    assert (message["userId"], message["anonymousId"]) == ("5", "visitor-1")


@pytest.mark.django_db(transaction=True)
def test_signed_in_user_is_read_when_somebody_tracks(segment_messages: CapturedMessages) -> None:
    client = Client()
    user = User.objects.create_user("ada")
    client.force_login(user)
    does["now"] = lambda request: None
    quiet = client.get("/sync/")
    assert not quiet.has_header("Vary")
    assert segment_messages.messages == []
    does["now"] = lambda request: segment_fallback.track(event="E")
    assert client.get("/sync/").status_code == 200
    segment_messages.assert_tracked("E", user_id=user.pk)


@pytest.mark.django_db(transaction=True)
def test_signed_in_user_is_read_in_a_coroutine(segment_messages: CapturedMessages) -> None:
    client = Client()
    user = User.objects.create_user("ada")
    client.force_login(user)

    async def view(request: Any) -> None:
        assert segment_fallback.track(event="sync")[0]
        assert (await segment_fallback.atrack(event="async"))[0]
        assert (await request.segment.atrack("bound"))[0]

    does["now"] = view
    by_asgi("/async/", HTTP_COOKIE=f"sessionid={client.cookies['sessionid'].value}")
    for event in ("sync", "async", "bound"):
        segment_messages.assert_tracked(event, user_id=user.pk, times=1)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("ids", "filled"),
    [
        ({}, True),
        ({"anonymous_id": "visitor-1"}, True),
        ({"user_id": "another"}, False),
        ({"anonymous_id": "visitor-2"}, False),
        ({"user_id": "another", "anonymous_id": "visitor-1"}, False),
    ],
)
def test_call_about_somebody_else_gets_nothing_of_the_visitor(
    ask: Callable[..., Answer], segment_messages: CapturedMessages, ids: dict[str, str], filled: bool
) -> None:
    """An order that an employee ships is not the employee's."""
    ask(lambda request: segment_fallback.track(event="E", **ids), **VISITOR)  # type: ignore[arg-type]
    [message] = segment_messages.messages
    assert message["userId"] == ids.get("user_id")
    assert message["anonymousId"] == ("visitor-1" if filled else ids.get("anonymous_id"))
    assert set(message["context"]) == (
        {"ip", "userAgent", "userAgentData", "locale", "page", "library"} if filled else {"library"}
    )


@pytest.mark.django_db
def test_request_is_read_once_and_only_for_calls_about_its_visitor(
    segment_messages: CapturedMessages, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[HttpRequest] = []
    context_of = visitor.context_of

    def reading(request: HttpRequest, *settings: Any) -> dict[str, Any]:
        read.append(request)
        return context_of(request, *settings)

    monkeypatch.setattr(visitor, "context_of", reading)
    does["now"] = lambda request: segment_fallback.track("somebody else", "E")
    by_wsgi("/sync/", **VISITOR)
    assert (len(segment_messages.messages), len(read)) == (1, 0)
    does["now"] = lambda request: [segment_fallback.track(event=event) for event in ("E", "F")]
    by_wsgi("/sync/", **VISITOR)
    assert (len(segment_messages.messages), len(read)) == (3, 1)


@pytest.mark.django_db
def test_visitor_without_any_id_is_counted(ask: Callable[..., Answer]) -> None:
    def view(request: Any) -> None:
        assert segment_fallback.track(event="E")[0] is False
        assert request.segment.track("E")[0] is False

    assert ask(view).body == b"page"
    assert STORE.outcomes.total() == 2
    assert {key[2] for key in STORE.outcomes} == {"no_id"}


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("headers", "reason"), [({"HTTP_SEC_GPC": "1"}, Outcome.GPC), ({"HTTP_DNT": "1"}, Outcome.DNT)]
)
def test_visitor_who_does_not_want_it_is_not_tracked(
    settings: Any, segment_messages: CapturedMessages, headers: dict[str, str], reason: Outcome
) -> None:
    change(settings, RAISE_ERRORS=True)
    does["now"] = lambda request: (request.segment.track("mine"), segment_fallback.track("another", "theirs"))
    by_wsgi("/sync/", **VISITOR, **headers)
    assert [message["event"] for message in segment_messages.messages] == ["theirs"]
    assert [why for why, _ in segment_messages.refused] == [reason.value]


@pytest.mark.django_db
def test_messages_of_a_view_that_raises_are_written(ask: Callable[..., Answer], caplog: Any) -> None:
    def view(request: Any) -> None:
        segment_fallback.track("u", "E")
        raise ValueError("of the view's")

    answer = ask(view)
    assert b"Server Error" in answer.body
    assert answer.after == 1


@pytest.mark.django_db
def test_messages_are_written_where_exceptions_leave_the_handler(settings: Any, caplog: Any) -> None:
    settings.DEBUG_PROPAGATE_EXCEPTIONS = True

    def view(request: Any) -> None:
        segment_fallback.track("u", "E")
        raise ValueError("of the view's")

    does["now"] = view
    with pytest.raises(ValueError, match="of the view"):
        by_wsgi("/sync/")
    assert depth() == 1


@pytest.mark.django_db
def test_visitor_who_leaves_before_the_answer_was_tracked() -> None:
    started = asyncio.Event()

    async def view() -> None:
        segment_fallback.track("u", "E")
        started.set()
        await asyncio.Event().wait()

    async def leave() -> None:
        does["now"] = lambda request: view()
        scope = AsyncRequestFactory()._base_scope(path="/async/", method="GET")  # type: ignore[attr-defined]
        application = communicate(ASGIHandler(), scope)
        await application.send_input({"type": "http.request", "body": b"", "more_body": False})
        await asyncio.wait_for(started.wait(), 10)
        assert depth() == 0
        await application.send_input({"type": "http.disconnect"})
        await application.wait(10)

    asyncio.run(leave())
    assert depth() == 1


@pytest.mark.django_db
def test_body_that_is_streamed_tracks_its_visitor(segment_messages: CapturedMessages) -> None:
    def body() -> Iterator[str]:
        for number in range(3):
            segment_fallback.track(event=f"part {number}")
            yield "x"

    does["now"] = lambda request: StreamingHttpResponse(body())
    assert by_wsgi("/sync/", **VISITOR).body == b"xxx"
    assert [m["anonymousId"] for m in segment_messages.messages] == ["visitor-1"] * 3


@pytest.mark.django_db
def test_body_that_is_streamed_in_a_coroutine_tracks_its_visitor(segment_messages: CapturedMessages) -> None:
    async def body() -> AsyncIterator[str]:
        for number in range(3):
            await segment_fallback.atrack(event=f"part {number}")
            yield "x"

    does["now"] = lambda request: StreamingHttpResponse(body())
    assert by_asgi("/async/", **VISITOR).body == b"xxx"
    assert [m["anonymousId"] for m in segment_messages.messages] == ["visitor-1"] * 3


@pytest.mark.django_db
def test_stream_that_goes_on_keeps_nothing_in_memory() -> None:
    depths: list[int] = []

    def body() -> Iterator[str]:
        for _ in range(3):
            depths.append(depth())
            segment_fallback.track("u", "E")
            yield "x"

    def view(request: Any) -> StreamingHttpResponse:
        segment_fallback.track("u", "before")
        return StreamingHttpResponse(body())

    does["now"] = view
    assert by_wsgi("/sync/").after == 4
    assert depths == [0, 2, 3]


@pytest.mark.django_db
def test_file_is_still_the_servers_to_send(tmp_path: Any) -> None:
    file = tmp_path / "file"
    file.write_text("file")

    def view(request: Any) -> FileResponse:
        segment_fallback.track("u", "Downloaded")
        return FileResponse(file.open("rb"))

    does["now"] = view
    environ = RequestFactory().get("/sync/").environ
    wrapped: list[Any] = []

    def wrapper(*args: Any) -> Iterator[bytes]:
        wrapped.append(args)
        return iter([b"file"])

    environ["wsgi.file_wrapper"] = wrapper
    WSGIHandler()(environ, lambda *args: lambda data: None)
    file_to_send = wrapped[0][0]
    file_to_send.close()
    assert depth() == 1


@pytest.mark.django_db
def test_many_messages_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitor, "MAX_DEFERRED", 3)
    depths = []

    def view(request: Any) -> None:
        for _ in range(5):
            segment_fallback.track("u", "E")
            depths.append(depth())

    does["now"] = view
    assert by_wsgi("/sync/").after == 5
    assert depths == [0, 0, 0, 1, 2]


@pytest.mark.django_db
def test_call_by_the_request_after_its_response_is_written_at_once(ask: Callable[..., Answer]) -> None:
    kept: list[Any] = []
    ask(kept.append, **VISITOR)
    assert kept[0].segment.track("late")[0]
    assert depth() == 1
    assert segment_fallback.track(event="outside")[0] is False


@pytest.mark.django_db(transaction=True)
def test_message_waits_for_the_transaction_and_for_the_response() -> None:
    def view(request: Any) -> None:
        with transaction.atomic():
            segment_fallback.track("u", "committed", on_commit=True)
            assert depth() == 0
        try:
            with transaction.atomic():
                segment_fallback.track("u", "rolled back", on_commit=True)
                segment_fallback.track("u", "all the same")
                raise ValueError
        except ValueError:
            pass
        assert depth() == 0

    does["now"] = view
    assert by_wsgi("/sync/").after == 2
    assert "rolled back" not in repr([row.message.body for row in STORE.rows.values()])


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("fails", [True, False])
def test_request_whose_transaction_rolls_back_sends_nothing(settings: Any, caplog: Any, fails: bool) -> None:
    change(settings, ON_COMMIT=True)

    @transaction.atomic
    def view(request: Any) -> None:
        request.segment.track("Order Completed")
        if fails:
            raise ValueError

    does["now"] = view
    assert by_wsgi("/sync/", **VISITOR).after == (0 if fails else 1)


def test_hundred_requests_at_once_do_not_mix_up_their_visitors(segment_messages: CapturedMessages) -> None:
    together = 100

    async def main() -> None:
        here = 0
        everybody = asyncio.Event()

        async def view(request: Any) -> None:
            nonlocal here
            name = request.COOKIES["ajs_anonymous_id"]
            await segment_fallback.atrack(event="first", properties={"name": name})
            here += 1
            if here == together:
                everybody.set()
            await everybody.wait()
            segment_fallback.track(event="second", properties={"name": name})
            await asyncio.gather(
                segment_fallback.atrack(event="third", properties={"name": name}),
                asyncio.create_task(request.segment.atrack("fourth", {"name": name})),
                sync_to_async(segment_fallback.track)(event="fifth", properties={"name": name}),
            )

        does["now"] = view
        await asyncio.gather(
            *(arequest("/async/", HTTP_COOKIE=f"ajs_anonymous_id=v{number}") for number in range(together))
        )

    asyncio.run(main())
    assert len(segment_messages.messages) == 5 * together
    assert {message["anonymousId"] for message in segment_messages.messages} == {f"v{n}" for n in range(together)}
    assert all(message["anonymousId"] == message["properties"]["name"] for message in segment_messages.messages)


def test_threads_do_not_mix_up_their_visitors(segment_messages: CapturedMessages) -> None:
    barrier = threading.Barrier(8)

    def view(request: Any) -> None:
        barrier.wait(10)
        segment_fallback.track(event="E", properties={"name": request.COOKIES["ajs_anonymous_id"]})

    does["now"] = view
    threads = [
        threading.Thread(target=by_wsgi, args=["/sync/"], kwargs={"HTTP_COOKIE": f"ajs_anonymous_id=v{number}"})
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(segment_messages.messages) == 8
    assert all(message["anonymousId"] == message["properties"]["name"] for message in segment_messages.messages)


@pytest.mark.django_db
def test_request_that_tracks_nothing_writes_nothing(ask: Callable[..., Answer]) -> None:
    assert ask(lambda request: None, **VISITOR).after == 0
    assert (waiting(), outcomes()) == ([], {})


@pytest.mark.django_db
def test_request_has_every_call(segment_messages: CapturedMessages) -> None:
    def view(request: Any) -> None:
        calls = request.segment
        calls.track("E", {"a": 1})
        calls.page("category", "name")
        calls.screen("category", "name")
        calls.identify({"a": 1}, user_id=5)
        calls.group("g", {"a": 1})
        calls.alias(user_id=5)

    does["now"] = view
    by_wsgi("/sync/", **VISITOR)
    kinds = [message["type"] for message in segment_messages.messages]
    assert kinds == ["track", "page", "screen", "identify", "group", "alias"]
    *others, alias = segment_messages.messages
    assert {message["anonymousId"] for message in others} == {"visitor-1"}
    assert (alias["previousId"], alias["anonymousId"], alias["userId"]) == ("visitor-1", None, "5")
    assert (others[4]["groupId"], others[4]["traits"], others[3]["userId"]) == ("g", {"a": 1}, "5")


@pytest.mark.django_db
def test_host_that_is_not_the_sites_is_no_page(segment_messages: CapturedMessages, settings: Any) -> None:
    settings.MIDDLEWARE = ["segment_fallback.middleware.SegmentMiddleware"]  # CommonMiddleware would refuse it
    does["now"] = lambda request: request.segment.track("E")
    by_wsgi("/sync/", **VISITOR, HTTP_HOST="forged.example")
    [message] = segment_messages.messages
    assert "page" not in message["context"]
