"""What a call of ``analytics.track(…)``, ``page(…)`` … means: the event that analytics.js makes of its arguments.

The rules are those of ``@segment/analytics-next`` 1.84 (MIT): its arguments resolver, event factory and page
context. Arguments come through JSON, in which functions and ``undefined`` have become null. Options that are no
object are none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from segment_fallback.intake import context

Json = dict[str, Any]

_TOP_LEVEL = ("userId", "anonymousId", "timestamp", "messageId")
"""The options of a call that become fields of the event; every other one goes into its context."""


class InvalidCall(ValueError):
    """Not a call that analytics.js would make an event of."""


def event_of(method: str, arguments: Sequence[Any], page: Json) -> Json:
    """The event of a call, without ids and times but those that its options name.

    ``page`` is the page as it was then, as ``page_of`` tells. Raises InvalidCall.
    """
    resolve = _RESOLVERS.get(method)
    if resolve is None:
        raise InvalidCall("not a method that makes an event")
    event, options = resolve(arguments)
    context_, top_level = _options(options)
    event = {"type": method, **event, "context": context_, "integrations": options.get("integrations") or {}}
    event |= top_level
    own_page = context_.get("page")
    chosen: Json = {}
    if method == "page":
        chosen = {key: event["properties"][key] for key in page if key in event["properties"]}
        name = {"name": event["name"]} if event.get("name") else {}
        event["properties"] = {**page, **event["properties"], **name}
    context_["page"] = {**page, **chosen, **(own_page if isinstance(own_page, dict) else {})}
    return event


def page_of(buffered: Any) -> dict[str, str]:
    """``context.page`` from what the snippet appends to a call: ``{"__t": "bpc", "u": url, …}``. Raises InvalidCall."""
    if not isinstance(buffered, dict) or buffered.get("__t") != "bpc" or not set(buffered) <= set("cpustr") | {"__t"}:
        raise InvalidCall("the page of the call is missing")
    canonical, *texts = (buffered.get(key) or "" for key in "cpustr")
    if not all(isinstance(text, str) for text in (canonical, *texts)):
        raise InvalidCall("the page of the call is not told in texts")
    path, url, search, title, referrer = texts
    page = context.page_context(
        origin="", path=path, search=search, title=title, referrer=referrer, canonical=canonical
    )
    return page if canonical else {**page, "url": url.partition("#")[0]}


def resolve_track(arguments: Sequence[Any]) -> tuple[str, Json, Json]:
    """Event, properties and options of ``track``."""
    event, properties, options = _pad(arguments, 3)
    if isinstance(event, dict):
        name, data, options = event.get("event"), event.get("properties"), properties
        data = {} if data is None else data
    else:
        name, data = event, properties if isinstance(properties, dict) else {}
    if not name or not isinstance(name, str):
        raise InvalidCall("a track call needs an event name")
    return name, data, options if isinstance(options, dict) else {}


def resolve_page(arguments: Sequence[Any]) -> tuple[str | None, str | None, Json, Json]:
    """Category, name, properties and options of ``page`` and ``screen``."""
    five = _pad(arguments, 5)
    texts = [argument for argument in five if isinstance(argument, str)]
    category = name = None
    if len(texts) == 1:
        name = texts[0]
    elif len(texts) == 2:
        category = five[0] if isinstance(five[0], str) else None
        name = five[1] if isinstance(five[1], str) else None
    objects = [argument for argument in five if isinstance(argument, dict)]
    properties: Json = {}
    options: Json = {}
    if len(objects) == 1:
        # The fourth of five is options, also where nothing else was given.
        if not isinstance(five[2], dict) and isinstance(five[3], dict):
            options = objects[0]
        else:
            properties = objects[0]
    elif len(objects) == 2:
        properties, options = objects
    return category, name, properties, options


def resolve_user(arguments: Sequence[Any]) -> tuple[str | None, Json, Json]:
    """Id, traits and options of ``identify`` and ``group``; the id is None where the call names none."""
    expected = ["options", "traits", "id"]
    found: dict[str, Any] = {}
    for argument in arguments:
        current = expected.pop() if expected else None
        if current == "id":
            if isinstance(argument, str) or _is_number(argument):
                found["id"] = _text(argument)
                continue
            if argument is None:
                continue
            current = expected.pop()
        if current and (argument is None or isinstance(argument, dict)):
            found[current] = argument
    return found.get("id"), found.get("traits") or {}, found.get("options") or {}


def resolve_alias(arguments: Sequence[Any]) -> tuple[Any, str | None, Json]:
    """The new id, the previous one and the options of ``alias``."""
    four = _pad(arguments, 4)
    four[:2] = (_text(argument) if _is_number(argument) else argument for argument in four[:2])
    texts = [argument for argument in four if isinstance(argument, str)]
    options = next((argument for argument in four if isinstance(argument, dict)), {})
    return texts[0] if texts else four[0], texts[1] if len(texts) > 1 else None, options


def _track(arguments: Sequence[Any]) -> tuple[Json, Json]:
    name, properties, options = resolve_track(arguments)
    return {"event": name, "properties": properties}, options


def _page(arguments: Sequence[Any]) -> tuple[Json, Json]:
    event, options = _screen(arguments)
    if "category" in event:
        event["properties"] = {**event["properties"], "category": event["category"]}
    return event, options


def _screen(arguments: Sequence[Any]) -> tuple[Json, Json]:
    category, name, properties, options = resolve_page(arguments)
    named = {"category": category, "name": name}
    return {**{key: text for key, text in named.items() if text is not None}, "properties": properties}, options


def _identify(arguments: Sequence[Any]) -> tuple[Json, Json]:
    user_id, traits, options = resolve_user(arguments)
    return {"userId": user_id, "traits": traits}, options


def _group(arguments: Sequence[Any]) -> tuple[Json, Json]:
    group_id, traits, options = resolve_user(arguments)
    return {"groupId": group_id, "traits": traits}, options


def _alias(arguments: Sequence[Any]) -> tuple[Json, Json]:
    to, previous, options = resolve_alias(arguments)
    return {"userId": to, **({} if previous is None else {"previousId": previous})}, options


_RESOLVERS: dict[str, Callable[[Sequence[Any]], tuple[Json, Json]]] = {
    "track": _track,
    "page": _page,
    "screen": _screen,
    "identify": _identify,
    "group": _group,
    "alias": _alias,
}


def _options(options: Json) -> tuple[Json, Json]:
    """A call's options as the event's context and its own fields. ``"a.b"`` is the key ``b`` of ``a``."""
    given = options.get("context")
    found: Json = dict(given) if isinstance(given, dict) else {}
    top_level: Json = {}
    for key, value in options.items():
        if key in _TOP_LEVEL:
            top_level[key] = value
        elif key not in ("context", "integrations"):
            target = found
            *way, last = key.split(".")
            for step in way:
                inner = target.get(step)
                inner = target[step] = dict(inner) if isinstance(inner, dict) else {}
                target = inner
            target[last] = value
    return found, top_level


def _pad(arguments: Sequence[Any], length: int) -> list[Any]:
    return [*arguments[:length], *[None] * (length - len(arguments))]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)
