from __future__ import annotations

import base64
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from django.test import override_settings

from segment_fallback.buffers.base import now_ms
from segment_fallback.conf import compile_settings
from segment_fallback.profiles import Ids, api, profiles
from segment_fallback.profiles.api import pulls
from segment_fallback.profiles.record import Record
from segment_fallback.testing.answers import Answer
from tests.profiles.profile_api import ProfileAPI, dripping, eventually, profile_api
from tests.servers import free_port

TOKEN = "the-access-token"
PATIENT = 2.0
"""Seconds: longer than an answer takes on a busy machine."""


@pytest.fixture
def segment() -> Iterator[ProfileAPI]:
    with profile_api() as found:
        yield found


@pytest.fixture(autouse=True)
def process_that_has_asked_nothing() -> Iterator[None]:
    pulls.forget()
    yield
    eventually(lambda: not pulls._under_way)


def asking(url: str, **options: Any) -> override_settings:
    """The settings of a site that asks there. Its store is one that threads share."""
    return override_settings(
        SEGMENT_FALLBACK={
            "WRITE_KEY": "x",
            "PROFILES": {"BACKEND": "segment_fallback.profiles.cache.CacheProfiles"},
            "PROFILE_API": {"SPACE": "spa/1", "TOKEN": TOKEN, "HOST": url, "TIMEOUT": PATIENT, **options},
        }
    )


def stored(user_id: str) -> Record | None:
    ids = Ids(user_id)
    return profiles.store.records(ids).get(ids.keys[0])


def pull(user_id: str) -> Record | None:
    """As a page does that finds in the store what there is."""
    return pulls.pull(user_id, stored(user_id))


def values(record: Record | None) -> dict[str, Any] | None:
    return None if record is None else record.values


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    return call(), time.perf_counter() - began


def test_unknown_user_is_asked_for_and_kept(segment: ProfileAPI) -> None:
    user = f"ada/../{uuid4()}?limit=1&a=%2e#ü "
    segment.says({"vip": True, "plan": "pro"})
    with asking(segment.url):
        assert values(pull(user)) == {"vip": True, "plan": "pro"}
        assert values(stored(user)) == {"vip": True, "plan": "pro"}
        assert pull(user) is None
    path = f"GET /v1/spaces/spa%2F1/collections/users/profiles/user_id:{quote(user, safe='')}/traits?limit=200"
    assert segment.asked == [path]
    expected = "Basic " + base64.b64encode(f"{TOKEN}:".encode()).decode()
    assert segment.headers["Authorization"] == expected
    assert set(segment.headers) == {"Host", "User-Agent", "Accept", "Accept-Encoding", "Authorization"}


def test_host_of_the_eu_may_be_set() -> None:
    assert api.HOST == "https://profiles.segment.com"
    assert conf_problem(HOST="https://profiles.euw1.segment.com") == []


def conf_problem(**options: Any) -> list[str]:
    found = compile_settings({"WRITE_KEY": "x", "PROFILE_API": {"SPACE": "s", "TOKEN": "t", **options}})[1]
    return [problem.explanation for problem in found]


def test_user_whom_segment_does_not_know_is_asked_for_once_by_all_processes(segment: ProfileAPI) -> None:
    user = uuid4().hex
    with asking(segment.url):
        assert values(pull(user)) == {}
        pulls.forget()  # another process
        assert pull(user) is None
        assert len(segment.asked) == 1
        known = stored(user)
        assert known is not None
        later = Record(pulled=known.pulled - 301_000)
        segment.says({"a": 1})
        assert values(pulls.pull(user, later)) == {"a": 1}


def test_many_who_wait_for_one_user_cost_one_request(segment: ProfileAPI) -> None:
    user, found = uuid4().hex, []
    segment.says({"a": 1}, delay=0.2)
    with asking(segment.url):
        threads = [threading.Thread(target=lambda: found.append(values(pulls.pull(user, None)))) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [{"a": 1}] * 20
    assert len(segment.asked) == 1


def test_page_waits_no_longer_than_its_budget_and_the_answer_is_kept(segment: ProfileAPI) -> None:
    user = uuid4().hex
    segment.says({"a": 1}, delay=0.5)
    with asking(segment.url, TIMEOUT=0.05):
        found, seconds = timed(lambda: pull(user))
        assert found is None
        assert seconds < 0.15
        assert values(eventually(lambda: stored(user))) == {"a": 1}


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n"])
def test_server_that_drips_costs_a_page_its_budget_only(start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "TOTAL_TIMEOUT", 0.3)
    with dripping(start, 0.02) as url, asking(url, TIMEOUT=0.05):
        assert timed(lambda: pull(uuid4().hex))[1] < 0.15


def test_body_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "TOTAL_TIMEOUT", 0.3)
    with dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n", 0.02) as url, asking(url):
        found, seconds = timed(lambda: pull(uuid4().hex))
    assert found is None
    assert 0.3 < seconds < 1.0


def test_profile_that_is_old_is_shown_and_renewed_meanwhile(segment: ProfileAPI) -> None:
    user, now = uuid4().hex, now_ms()
    segment.says({"a": 2}, delay=0.2)
    with asking(segment.url, REFRESH=1):
        profiles.store.update(Ids(user), {"a": 1, "gone": 1}, now - 5_000, pulled=now - 5_000)
        found, seconds = timed(lambda: pull(user))
        assert found is None
        assert seconds < 0.15
        assert eventually(lambda: values(stored(user)) == {"a": 2})


def test_answer_that_is_only_a_part_takes_nothing_away(segment: ProfileAPI) -> None:
    user, now = uuid4().hex, now_ms()
    segment.says({"a": 2}, has_more=True)
    with asking(segment.url):
        profiles.store.update(Ids(user), {"a": 1, "b": 1}, now - 5_000)
        pull(user)
        assert eventually(lambda: values(stored(user)) == {"a": 2, "b": 1})


def test_what_the_webhook_told_since_is_newer_than_the_answer(segment: ProfileAPI) -> None:
    user = uuid4().hex
    segment.says({"a": "old"}, delay=0.2)
    with asking(segment.url, TIMEOUT=0.01):
        pull(user)
        profiles.store.update(Ids(user), {"a": "new"}, now_ms() + 1)
        eventually(lambda: stored(user).pulled)  # type: ignore[union-attr]
        assert values(stored(user)) == {"a": "new"}


def test_user_who_was_deleted_is_never_asked_for(segment: ProfileAPI) -> None:
    user, other = uuid4().hex, uuid4().hex
    segment.says({"a": 1}, delay=0.1)
    with asking(segment.url):
        profiles.store.delete(Ids(user))
        assert pull(user) is None
        assert segment.asked == []
        threading.Timer(0.05, lambda: profiles.store.delete(Ids(other))).start()
        assert values(pull(other)) == {}  # deleted while Segment was asked
        assert values(stored(other)) == {}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(status=500, body="x"), "HTTP 500"),
        (Answer(status=302, headers={"Location": "/"}), "HTTP 302"),
        (Answer(status=200, body="<html>"), "an answer that is no profile"),
        (Answer(status=200, body="[]"), "an answer that is no profile"),
        (Answer(status=200, body='{"traits": [1]}'), "an answer that is no profile"),
        (Answer(status=200, body='{"traits": {}, "cursor": 1}'), "an answer that is no profile"),
        (Answer(status=200, body='{"traits": {"a": ' + "[" * 30 + "]" * 30 + "}}"), "an answer that is no profile"),
        (Answer(status=200, body='{"traits": {"a": ' + "9" * 5_000 + "}}"), "an answer that is no profile"),
        (Answer(status=200, body="x" * 500_001), "more than 500,000 bytes"),
        (Answer(status=401), "HTTP 401: check SPACE, TOKEN and HOST in PROFILE_API"),
        (Answer.cut(), "ConnectionError"),
    ],
)
def test_bad_answer_is_none_and_logged_without_secrets(
    segment: ProfileAPI, answer: Answer, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    user = uuid4().hex
    segment.answer = lambda: answer
    with asking(segment.url), caplog.at_level(logging.DEBUG):
        assert pull(user) is None
        assert stored(user) is None
    assert len(segment.asked) == 1
    (record,) = (record for record in caplog.records if record.name == "segment_fallback")
    assert record.getMessage().endswith(f": {reason}")
    assert user not in record.getMessage()
    assert TOKEN not in caplog.text


def test_circuit_opens_when_it_fails_and_one_tries_after_a_while(
    segment: ProfileAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "PAUSE", 0.2)
    segment.answer = lambda: Answer(status=503)
    with asking(segment.url):
        for _ in range(10):
            assert pull(uuid4().hex) is None
        assert len(segment.asked) == 3
        time.sleep(0.25)
        for _ in range(5):
            pull(uuid4().hex)
        assert len(segment.asked) == 4
        segment.says({"a": 1})
        time.sleep(0.25)
        for _ in range(3):
            assert values(pull(uuid4().hex)) == {"a": 1}


@pytest.mark.parametrize(("header", "pause"), [("120", 120), ("9999", 300), ("soon", 10), ("99999999999", 10)])
def test_nobody_asks_for_as_long_as_429_says(segment: ProfileAPI, header: str, pause: float) -> None:
    segment.answer = lambda: Answer(status=429, headers={"Retry-After": header})
    with asking(segment.url):
        for _ in range(3):
            assert pull(uuid4().hex) is None
    assert len(segment.asked) == 1
    assert pause - 1 < pulls._paused_until - time.monotonic() <= pause


def test_process_asks_no_more_often_than_rate(segment: ProfileAPI) -> None:
    segment.says({"a": 1})
    with asking(segment.url, RATE=5):
        found, seconds = timed(lambda: [values(pull(uuid4().hex)) for _ in range(50)])
        assert len(segment.asked) <= 5 + 5 * seconds + 1
        assert found.count({"a": 1}) == len(segment.asked) >= 5


def test_requests_under_way_are_few(segment: ProfileAPI) -> None:
    segment.says({"a": 1}, delay=0.3)
    with asking(segment.url, TIMEOUT=0.001, RATE=1000):
        for _ in range(50):
            pull(uuid4().hex)
        eventually(lambda: len(segment.asked) == api.MAX_REQUESTS)
        time.sleep(0.05)
        assert len(segment.asked) == api.MAX_REQUESTS


def test_segment_that_cannot_be_reached_is_none(caplog: pytest.LogCaptureFixture) -> None:
    with asking(f"http://127.0.0.1:{free_port()}"):
        assert pull(uuid4().hex) is None
    assert "the Profile API failed" in caplog.text


def test_store_that_is_down_does_not_end_the_thread_in_silence(
    segment: ProfileAPI, caplog: pytest.LogCaptureFixture
) -> None:
    segment.says({"a": 1})
    with asking(segment.url), override_settings(CACHES={}):
        assert pulls.pull(uuid4().hex, None) is None
    assert "a profile could not be pulled: ProfilesUnavailable" in caplog.text


def test_odd_ids_are_not_asked_for(segment: ProfileAPI) -> None:
    with asking(segment.url):
        assert pulls.pull("x" * 501, None) is None
        pulls.pull("\ud800", None)
    assert [target.partition("user_id:")[2] for target in segment.asked] == ["%3F/traits?limit=200"]
