from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command
from pytest_django import DjangoDbBlocker

from segment_fallback.buffers import buffers
from segment_fallback.buffers.base import now_ms
from segment_fallback.delivery.flush import flush
from segment_fallback.message import encode
from segment_fallback.models import DeadLetter
from segment_fallback.testing import LocalSegment
from tests.databases import database

if TYPE_CHECKING:
    from pytest_django import Settings

pytestmark = pytest.mark.django_db

STAMP = "2026-11-20T10:00:00.000Z"


def message(name: str) -> dict[str, Any]:
    return {"type": "page", "messageId": name, "anonymousId": "a", "timestamp": STAMP, "name": "Größe"}


@pytest.fixture(autouse=True)
def buried(local_segment: LocalSegment) -> None:
    """Two messages that Segment refused, one of which would be taken now."""
    local_segment.refuse(lambda taken: True)
    buffers["default"].put([encode(message(name)) for name in ("m1", "m2")])
    flush()
    local_segment.answer_normally()
    DeadLetter.objects.filter(message_id="m1").update(buried=now_ms() - 40 * 86_400_000, reason="HTTP 413 Too Large")


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("segment_dead_letters", *arguments, stdout=out)
    return out.getvalue()


def test_list_has_a_line_each_and_nothing_of_the_person() -> None:
    first, second, total = run("list").splitlines()
    assert "m1  2 attempts  HTTP 413 Too Large" in first
    assert "m2  2 attempts  HTTP 400" in second
    assert total == "2 dead letters."
    assert "Größe" not in first + second


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], ["m1", "m2"]),
        (["m2"], ["m2"]),
        (["--reason", "too large"], ["m1"]),
        (["--older-than", "30"], ["m1"]),
        (["--older-than", "50"], []),
        (["--reason", "400", "--older-than", "30"], []),
    ],
)
def test_export_writes_a_line_of_json_each(arguments: list[str], found: list[str]) -> None:
    letters = [json.loads(line) for line in run("export", *arguments).splitlines()]
    assert [letter["message"] for letter in letters] == [message(name) for name in found]
    assert all(letter["attempts"] == 2 and letter["source"] == "default" for letter in letters)


def test_show_is_the_message_in_full() -> None:
    shown = json.loads(run("show", "m2"))
    assert shown["message"] == message("m2")
    assert "HTTP 400" in shown["reason"]


def test_replay_sends_the_same_message_again(local_segment: LocalSegment) -> None:
    assert run("replay", "m2") == "1 wait for the next flush.\n"
    assert [letter.message.message_id for letter in buffers["default"].dead_letters()] == ["m1"]
    assert flush().delivered == 1
    assert [received.message for received in local_segment.messages] == [message("m2")]


def test_replay_of_all(local_segment: LocalSegment) -> None:
    assert run("replay", "--all") == "2 wait for the next flush.\n"
    assert list(buffers["default"].dead_letters()) == []
    assert flush().delivered == 2


def test_delete_by_age_prunes() -> None:
    assert run("delete", "--older-than", "30") == "1 deleted.\n"
    assert run("list").endswith("1 dead letter.\n")
    assert buffers["default"].depth() == 0


@pytest.mark.parametrize("action", ["replay", "delete"])
def test_nothing_is_replayed_or_deleted_by_a_slip(action: str) -> None:
    with pytest.raises(CommandError, match=f"Which ones\\? .* or --all to {action} every one"):
        run(action)
    assert DeadLetter.objects.count() == 2


@pytest.mark.parametrize("action", ["list", "show", "export", "replay", "delete"])
def test_letters_that_are_not_there_are_named_after_the_rest(action: str) -> None:
    with pytest.raises(CommandError, match=r"Not among the dead letters asked for: m3, nobody\.$"):
        run(action, "m3", "m2", "nobody")
    assert DeadLetter.objects.filter(message_id="m2").exists() == (action not in ("replay", "delete"))


def test_unknown_buffer_is_named() -> None:
    with pytest.raises(CommandError, match="no buffer 'nope'; BUFFERS has default"):
        run("list", "--buffer", "nope")


@pytest.mark.parametrize("arguments", [["list"], ["export"], ["replay", "--all"], ["delete", "--all"]])
def test_buffer_that_is_down_is_named(
    settings: Settings, tmp_path: Path, django_db_blocker: DjangoDbBlocker, arguments: list[str]
) -> None:
    elsewhere = {"BACKEND": "segment_fallback.buffers.database.DatabaseBuffer", "OPTIONS": {"using": "empty"}}
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "BUFFERS": {"default": elsewhere}}
    with (
        database("empty", {"NAME": str(tmp_path / "db.sqlite3")}, django_db_blocker, migrate=False),
        pytest.raises(CommandError, match=r"^the database 'empty' failed: no such table: \w+\.$"),
    ):
        run(*arguments)
