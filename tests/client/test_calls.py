from __future__ import annotations

import asyncio
import copy
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from django.db import transaction
from django.test import TestCase

import segment_fallback
from segment_fallback import client
from segment_fallback.buffers import buffers
from segment_fallback.buffers.accept import acceptance
from segment_fallback.exceptions import BufferUnavailable, InvalidMessage, SpoolFull
from segment_fallback.message import Message
from segment_fallback.models import WaitingMessage
from segment_fallback.outcome import Outcome
from segment_fallback.testing import CapturedMessages
from tests.intake.visits import outcomes, waiting

pytestmark = pytest.mark.django_db


def change(settings: Any, **keys: Any) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, **keys}


def test_call_outside_of_a_request_is_durable_when_it_returns() -> None:
    taken, message = segment_fallback.track("u", "Order Completed", {"total": 12.5})
    assert taken
    assert waiting() == [message]
    assert (message["event"], message["properties"]) == ("Order Completed", {"total": 12.5})
    assert message["context"]["library"]["way"] == "server"
    assert outcomes() == {"accepted": 1}


@pytest.mark.parametrize("method", ["track", "page", "screen", "identify", "group", "alias"])
def test_async_twin_says_the_same(method: str, settings: Any) -> None:
    change(settings, BUFFERS={"default": {"BACKEND": "segment_fallback.buffers.memory.MemoryBuffer"}})
    args = ("u",) if method == "identify" else ("u", "v")
    taken, message = asyncio.run(getattr(segment_fallback, f"a{method}")(*args))
    again = getattr(segment_fallback, method)(*args)[1]
    varies = {"timestamp": None, "messageId": None}
    assert taken
    assert {**message, **varies} == {**again, **varies}
    assert buffers["default"].depth() == 2


def test_sync_call_in_a_coroutine_is_durable_when_it_returns(settings: Any) -> None:
    change(settings, BUFFERS={"default": {"BACKEND": "segment_fallback.buffers.memory.MemoryBuffer"}})

    async def view() -> tuple[bool, int]:
        return segment_fallback.track("u", "E")[0], buffers["default"].depth()

    assert asyncio.run(view()) == (True, 1)


@pytest.mark.django_db(transaction=True)
def test_sync_call_in_a_coroutine_may_use_the_database(tmp_path: Any) -> None:
    """In a process of its own: threads do not share a database in memory."""
    code = (
        "import asyncio, django; django.setup()\n"
        "from django.core.management import call_command; call_command('migrate', verbosity=0)\n"
        "from segment_fallback import track\n"
        "async def main(): return track('u', 'E')[0]\n"
        "taken = asyncio.run(main())\n"
        "from segment_fallback.models import WaitingMessage; print(taken, WaitingMessage.objects.count())"
    )
    env = {"DJANGO_SETTINGS_MODULE": "tests.settings", "TESTS_DATABASE": str(tmp_path / "db.sqlite3")}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout == "True 1\n"


def test_dicts_of_the_caller_stay_as_they_are() -> None:
    given: dict[str, Any] = {"a": {"b": [1, (2, 3), {4}]}, "when": object, "bytes": b"x"}
    before = copy.deepcopy(given)
    message = segment_fallback.track("u", "E", given, given, integrations=given)[1]
    message["properties"]["a"]["b"].append("mine")
    assert given == before


def test_message_goes_to_the_source_that_is_named(settings: Any) -> None:
    change(settings, SOURCES={"docs": {"WRITE_KEY": "docs-key"}})
    assert segment_fallback.track("u", "E", source="docs")[0]
    assert WaitingMessage.objects.get().source == "docs"


def test_source_that_is_unknown_is_counted_or_raised(settings: Any, caplog: Any) -> None:
    assert not segment_fallback.track("u", "E", source="shop")[0]
    assert outcomes() == {"disabled": 1}
    assert "SOURCES has no 'shop' with a write key" in caplog.text
    change(settings, RAISE_ERRORS=True)
    with pytest.raises(InvalidMessage, match="SOURCES"):
        segment_fallback.track("u", "E", source="shop")


def test_site_without_write_key_counts_and_goes_on(settings: Any) -> None:
    change(settings, WRITE_KEY="", RAISE_ERRORS=True)
    assert not segment_fallback.track("u", "E")[0]
    assert outcomes() == {"disabled": 1}


@pytest.mark.parametrize("setting", ["DEBUG", "RAISE_ERRORS", ""])
def test_call_that_is_not_taken_is_explained_in_development(settings: Any, caplog: Any, setting: str) -> None:
    change(settings, WRITE_KEY="", RAISE_ERRORS=setting == "RAISE_ERRORS")
    settings.DEBUG = setting == "DEBUG"
    segment_fallback.track("u", "E")
    assert caplog.messages == (
        ["a message by server code was not taken, disabled: " + Outcome.DISABLED.explanation] if setting else []
    )


@pytest.mark.parametrize(
    ("call", "outcome"),
    [
        (lambda: segment_fallback.track(None, "secret"), "no_id"),
        (lambda: segment_fallback.track("u", ""), "invalid"),
        (lambda: segment_fallback.track("u", "E", message_id="a secret"), "invalid"),
        (lambda: segment_fallback.track("u", "E", {"text": "secret" * 10_000}), "size"),
        (lambda: client.send({"type": "secret", "userId": "u"}), "invalid"),
        (lambda: client.send({"userId": "secret"}), "invalid"),
    ],
)
def test_refused_call_is_counted_and_logged_without_what_it_said(
    settings: Any, caplog: Any, call: Callable[[], tuple[bool, Any]], outcome: str
) -> None:
    assert call()[0] is False
    assert outcomes() == {outcome: 1}
    [record] = caplog.records
    assert "refused" in record.getMessage()
    assert "secret" not in caplog.text
    change(settings, RAISE_ERRORS=True)
    with pytest.raises(InvalidMessage):
        call()
    assert outcomes() == {outcome: 2}
    assert waiting() == []


def test_value_without_form_in_json_raises_where_errors_do(settings: Any, caplog: Any) -> None:
    assert segment_fallback.track("u", "E", {"a": object(), "b": 1})[1]["properties"] == {"b": 1}
    assert "a value of type object was left out" in caplog.text
    change(settings, RAISE_ERRORS=True)
    with pytest.raises(InvalidMessage, match="object"):
        segment_fallback.track("u", "E", {"a": object()})
    with pytest.raises(InvalidMessage, match="two keys"):
        segment_fallback.track("u", "E", {1: "a", "1": "b"})  # type: ignore[dict-item]
    assert segment_fallback.track("u", "E", {"a": b"text"})[1]["properties"] == {"a": "text"}


class Down:
    """Stands for a buffer and a spool that are both down."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def put(self, messages: Sequence[Message]) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (SpoolFull("full"), "spool_full"),
        (BufferUnavailable("down"), "unavailable"),
        (RuntimeError("unforeseen"), "unavailable"),
    ],
)
def test_message_that_nothing_keeps_is_counted_and_never_raises(
    settings: Any, caplog: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, outcome: str
) -> None:
    monkeypatch.setattr(acceptance, "_down_until", float("inf"))
    monkeypatch.setattr(acceptance, "_spool", Down(error))
    monkeypatch.setattr(acceptance, "_spool_made_for", segment_fallback.conf.get_settings())
    assert segment_fallback.track("u", "E")[0] is False
    assert outcomes() == {outcome: 1}
    assert "1 messages by server code are lost" in caplog.text
    change(settings, RAISE_ERRORS=True)
    monkeypatch.setattr(acceptance, "_spool_made_for", segment_fallback.conf.get_settings())
    with pytest.raises(type(error)):
        segment_fallback.track("u", "E")


class Broken(dict[str, Any]):
    """A dict that fails, with a text that nobody should find in a log."""

    def __bool__(self) -> bool:
        raise RuntimeError("secret")


def test_call_that_fails_in_an_unforeseen_way_is_counted(settings: Any, caplog: Any) -> None:
    assert client.send({"type": "track", "userId": "u", "event": "E", "context": Broken()})[0] is False
    assert outcomes() == {"unavailable": 1}
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text
    change(settings, RAISE_ERRORS=True)
    with pytest.raises(RuntimeError):
        client.send({"type": "track", "userId": "u", "event": "E", "context": Broken()})


def test_whole_message_is_sent_in_a_coroutine(segment_messages: CapturedMessages) -> None:
    assert asyncio.run(client.asend({"type": "track", "userId": "u", "event": "E"}))[0]
    segment_messages.assert_tracked("E", user_id="u", times=1)


def test_flush_and_shutdown_do_nothing() -> None:
    segment_fallback.flush()
    segment_fallback.shutdown()
    assert segment_fallback.track("u", "E")[0]


@pytest.mark.parametrize("first", ["import segment_fallback.page.snippet", "pass"])
def test_page_is_a_call_whatever_was_imported_before(first: str) -> None:
    code = (
        f"import django; django.setup()\n{first}\n"
        "from segment_fallback import page\n"
        "from segment_fallback.testing import captured_messages\n"
        "with captured_messages() as messages: page('u', 'category', 'name')\n"
        "import segment_fallback.page.snippet; from segment_fallback import page\n"
        "with captured_messages() as more: page('u', 'category', 'name')\n"
        "print(messages.messages[0]['name'], more.messages[0]['name'])"
    )
    env = {"DJANGO_SETTINGS_MODULE": "tests.settings"}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout == "name name\n"


def test_every_public_call_is_there() -> None:
    for name in segment_fallback.__all__:
        assert getattr(segment_fallback, name)
    with pytest.raises(AttributeError, match="trak"):
        segment_fallback.trak  # noqa: B018


def test_import_of_the_package_costs_nothing() -> None:
    code = "import sys, segment_fallback; print(*(m for m in sys.modules if m.startswith(('segment', 'django'))))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.split() == ["segment_fallback"]


class Undone(Exception):
    """Rolls a transaction back."""


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("by", ["argument", "setting"])
def test_rolled_back_transaction_sends_nothing(settings: Any, by: str) -> None:
    change(settings, ON_COMMIT=by == "setting")
    on_commit = True if by == "argument" else None

    @transaction.atomic
    def undone(event: str) -> None:
        assert segment_fallback.track("u", event, on_commit=on_commit)[0]
        raise Undone

    with pytest.raises(Undone):
        undone("rolled back")
    with transaction.atomic():
        segment_fallback.track("u", "committed", on_commit=on_commit)
        with pytest.raises(Undone):
            undone("rolled back inside")
        with transaction.atomic():
            segment_fallback.track("u", "committed inside", on_commit=on_commit)
        assert waiting() == []
    segment_fallback.track("u", "without transaction", on_commit=on_commit)
    assert [message["event"] for message in waiting()] == ["committed", "committed inside", "without transaction"]


@pytest.mark.django_db(transaction=True)
def test_call_outside_of_a_request_is_a_row_of_the_transaction_around_it() -> None:
    @transaction.atomic
    def undone() -> None:
        assert segment_fallback.track("u", "E")[0]
        raise Undone

    with pytest.raises(Undone):
        undone()
    assert waiting() == []


def test_test_case_hears_of_commits_that_never_come(segment_messages: CapturedMessages) -> None:
    with TestCase.captureOnCommitCallbacks(execute=True):
        segment_fallback.track("u", "E", on_commit=True)
        segment_messages.assert_not_tracked("E")
    segment_messages.assert_tracked("E", times=1)


@pytest.mark.django_db(transaction=True)
def test_call_may_overrule_the_setting(settings: Any) -> None:
    change(settings, ON_COMMIT=True)
    with transaction.atomic():
        segment_fallback.track("u", "E", on_commit=False)
        assert len(waiting()) == 1
