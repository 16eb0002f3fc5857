"""``request.segment``: the calls of server code about this request's visitor, written once the response was sent.

Made for every page, so it costs next to nothing until somebody tracks: only then are cookies, session and user read.
The body never is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from asgiref.sync import sync_to_async
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase

from segment_fallback import ambient
from segment_fallback.client import Person, Scope, send
from segment_fallback.client.calls import Dict, Id, twin
from segment_fallback.client.sending import Sent, write
from segment_fallback.conf import DEFAULT_SOURCE, Settings, get_settings
from segment_fallback.intake import context, identity
from segment_fallback.intake.privacy import check_choices
from segment_fallback.message import Message
from segment_fallback.outcome import Outcome, Refused

if TYPE_CHECKING:
    from segment_fallback.profiles.store import Profile

MAX_DEFERRED = 500
"""Messages that one request keeps in memory. Past that they are written at once."""


class Visitor(Scope):
    """The calls of ``segment_fallback.client`` without ``user_id`` in front: the visitor is who he is.

    Where the site knows better than Django's auth, ``user_id=`` says who he is; ids and context are his all the same.
    """

    seed = ""
    _deferred: deque[Message] | None = None
    _deferring = True
    _seen: SeenHere | None = None
    variation: str | None = None
    """Which variation of the page the visitor gets; None where the page has none. See profiles/variations.py."""
    variations: Mapping[str, str] = MappingProxyType({})
    """The same by experiment, where a page takes part in several."""
    signed_up: Any = None
    """The primary key of the user whom this request created."""

    def __init__(self, request: HttpRequest) -> None:
        # Not the base class's: this is made for every page.
        self._request = request

    def track(
        self,
        event: str,
        properties: Dict = None,
        *,
        user_id: Id = None,
        context: Dict = None,
        timestamp: datetime | None = None,
        integrations: Dict = None,
        message_id: Id = None,
        source: str = DEFAULT_SOURCE,
        on_commit: bool | None = None,
    ) -> Sent:
        """The visitor did something: ``request.segment.track("Order Completed", {"total": order.total})``."""
        own = {"type": "track", "event": event, "properties": properties or {}, "userId": user_id}
        given = {"context": context, "timestamp": timestamp, "integrations": integrations, "messageId": message_id}
        return self._send({**own, **given}, source, on_commit)

    def page(
        self,
        category: str | None = None,
        name: str | None = None,
        properties: Dict = None,
        *,
        user_id: Id = None,
        context: Dict = None,
        timestamp: datetime | None = None,
        integrations: Dict = None,
        message_id: Id = None,
        source: str = DEFAULT_SOURCE,
        on_commit: bool | None = None,
    ) -> Sent:
        """The visitor saw this page. For pages without the snippet, which would count it twice."""
        own = {"type": "page", "category": category, "name": name, "properties": properties or {}, "userId": user_id}
        given = {"context": context, "timestamp": timestamp, "integrations": integrations, "messageId": message_id}
        return self._send({**own, **given}, source, on_commit)

    def screen(
        self,
        category: str | None = None,
        name: str | None = None,
        properties: Dict = None,
        *,
        user_id: Id = None,
        context: Dict = None,
        timestamp: datetime | None = None,
        integrations: Dict = None,
        message_id: Id = None,
        source: str = DEFAULT_SOURCE,
        on_commit: bool | None = None,
    ) -> Sent:
        """The visitor saw a screen of an app."""
        own = {"type": "screen", "category": category, "name": name, "properties": properties or {}, "userId": user_id}
        given = {"context": context, "timestamp": timestamp, "integrations": integrations, "messageId": message_id}
        return self._send({**own, **given}, source, on_commit)

    def identify(
        self,
        traits: Dict = None,
        *,
        user_id: Id = None,
        context: Dict = None,
        timestamp: datetime | None = None,
        integrations: Dict = None,
        message_id: Id = None,
        source: str = DEFAULT_SOURCE,
        on_commit: bool | None = None,
    ) -> Sent:
        """Who the visitor is."""
        own = {"type": "identify", "traits": traits or {}, "userId": user_id}
        given = {"context": context, "timestamp": timestamp, "integrations": integrations, "messageId": message_id}
        return self._send({**own, **given}, source, on_commit)

    def group(
        self,
        group_id: Id,
        traits: Dict = None,
        *,
        user_id: Id = None,
        context: Dict = None,
        timestamp: datetime | None = None,
        integrations: Dict = None,
        message_id: Id = None,
        source: str = DEFAULT_SOURCE,
        on_commit: bool | None = None,
    ) -> Sent:
        """The visitor belongs to a group; the traits are the group's."""
        own = {"type": "group", "groupId": group_id, "traits": traits or {}, "userId": user_id}
        given = {"context": context, "timestamp": timestamp, "integrations": integrations, "messageId": message_id}
        return self._send({**own, **given}, source, on_commit)

    def alias(
        self,
        previous_id: Id = None,
        *,
        user_id: Id = None,
        context: Dict = None,
        timestamp: datetime | None = None,
        integrations: Dict = None,
        message_id: Id = None,
        source: str = DEFAULT_SOURCE,
        on_commit: bool | None = None,
    ) -> Sent:
        """The visitor was known by another id: by default the anonymousId."""
        own = {"type": "alias", "previousId": previous_id, "userId": user_id}
        given = {"context": context, "timestamp": timestamp, "integrations": integrations, "messageId": message_id}
        return self._send({**own, **given}, source, on_commit)

    atrack, apage, ascreen = twin(track), twin(page), twin(screen)
    aidentify, agroup, aalias = twin(identify), twin(group), twin(alias)

    def _send(self, message: Mapping[str, Any], source: str, on_commit: bool | None) -> Sent:
        return send(message, source=source, on_commit=on_commit, about=self)

    def person(self) -> Person:
        """The visitor: cookies and headers as they came, the user as he is now."""
        if self._seen is None:
            self._seen = SeenHere(self._request)
        return Person(identity.user_id(self._request, get_settings()), self._seen)

    @property
    def profile(self) -> Profile | None:
        """What Segment knows of the visitor, out of the store of PROFILES; None where nothing is known."""
        from segment_fallback.profiles.lookup import profile_of  # which needs this package

        return profile_of(self._request)

    def fields(self) -> Mapping[str, Any]:
        """The visitor, for what outlives the request: tasks and events."""
        return self.person().fields()

    def defer(self, message: Message) -> bool:
        if not self._is_open() or (self._deferred and len(self._deferred) >= MAX_DEFERRED):
            return False
        # Threads of one request may track at once: each of these steps is one that cannot be interrupted.
        self.__dict__.setdefault("_deferred", deque()).append(message)
        if not self._is_open():  # closed meanwhile
            self.write()
        return True

    def _is_open(self) -> bool:
        return self._deferring

    @property
    def waits(self) -> bool:
        """Whether something was deferred."""
        return bool(self._deferred)

    def write(self) -> None:
        """Write what was deferred, in one write."""
        messages = []
        while self._deferred:
            messages.append(self._deferred.popleft())
        if messages:
            write(messages)

    def close(self) -> None:
        """The response was sent. What is tracked from now on is written at once."""
        self._deferring = False
        self.write()

    aclose = sync_to_async(close)

    def end_with(self, response: HttpResponseBase) -> HttpResponseBase:
        """The response, after which everything is written."""
        if response.streaming and getattr(response, "file_to_stream", None) is None:
            _wrap(cast(StreamingHttpResponse, response), self)
        elif not self._deferred:
            self._deferring = False
            return response
        # Called when the server is done with the response, sent or not.
        response._resource_closers.append(self.close)  # type: ignore[attr-defined]
        return response


class SeenHere:
    """What cookies and headers tell of a visitor."""

    _context: Mapping[str, Any] | None = None

    def __init__(self, request: HttpRequest) -> None:
        self._request = request

    @property
    def anonymous_id(self) -> str | None:
        return identity.anonymous_id(self._request, get_settings())

    @property
    def refused(self) -> Outcome | None:
        try:
            check_choices(self._request, get_settings())
        except Refused as refusal:
            return refusal.outcome
        return None

    @property
    def context(self) -> Mapping[str, Any]:
        # Not cached_property, which up to Python 3.11 takes a lock.
        if self._context is None:
            self._context = context_of(self._request, get_settings())
        return self._context


def _wrap(response: StreamingHttpResponse, visitor: Visitor) -> None:
    """Let the body's calls be about the visitor. What waits is written between two parts: a stream may last hours."""
    parts: Any = response.streaming_content

    def stream() -> Iterator[bytes]:
        iterator = iter(parts)
        while True:
            token = ambient.current.set(visitor)
            try:
                part = next(iterator)
            except StopIteration:
                return
            finally:
                ambient.current.reset(token)
            yield part
            visitor.write()

    async def astream() -> AsyncIterator[bytes]:
        iterator = aiter(parts)
        while True:
            token = ambient.current.set(visitor)
            try:
                part = await anext(iterator)
            except StopAsyncIteration:
                return
            finally:
                ambient.current.reset(token)
            yield part
            if visitor.waits:
                await sync_to_async(visitor.write)()

    response.streaming_content = astream() if response.is_async else stream()


def context_of(request: HttpRequest, settings: Settings) -> dict[str, Any]:
    """The ``context`` of a visit, as analytics.js would have it on that page."""
    found = {key: value for key, value in context.environment(request).items() if value}
    if ip := identity.client_ip(request, settings):
        found["ip"] = ip
    try:
        origin = f"{request.scheme}://{request.get_host()}"
    except DisallowedHost:
        return found
    path, search, referrer = request.path, request.META.get("QUERY_STRING", ""), request.META.get("HTTP_REFERER", "")
    if request.META.get("HTTP_SEC_FETCH_DEST", "document") == "empty" and referrer.startswith(f"{origin}/"):
        # A script's request: the page that the visitor sees is the one that asks.
        page = urlsplit(referrer)
        path, search, referrer = page.path, page.query, ""
    search = f"?{search}" if search else ""
    page_context = context.page_context(
        origin=origin, path=path, search=search, title="", referrer=referrer, canonical=""
    )
    found["page"] = {key: value for key, value in page_context.items() if key != "title"}
    if campaign := context.campaign(search):
        found["campaign"] = campaign
    return found
