"""One fetch for all, stale in need: against a CDN that fails in every way, over real HTTP."""

from __future__ import annotations

import gzip
import itertools
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.core.cache import caches

from segment_fallback.cdn import store as store_module
from segment_fallback.cdn import upstream
from segment_fallback.cdn.files import File
from segment_fallback.cdn.rewrite import Place
from segment_fallback.cdn.store import Entry, Store
from segment_fallback.testing import Answer, LocalSegment
from tests.cdn.conftest import (
    LIBRARY_UPSTREAM,
    SETTINGS_UPSTREAM,
    WRITE_KEY,
    asked,
    bundle_url,
    fetch,
    integration_url,
    script_url,
    settings_url,
)

JS = {"Content-Type": "application/javascript"}
FAULTS = {
    "500": Answer(status=500),
    "503": Answer(status=503, headers={"Retry-After": "9"}),
    "404": Answer(status=404, body="no"),
    "403": Answer(status=403, body="no"),
    "204": Answer(status=204),
    "206": Answer(status=206, headers=JS, body="let"),
    "304 that nobody asked for": Answer(status=304),
    "redirect": Answer.redirect("/analytics-next/bundles/standalone.js"),
    "connection reset": Answer.cut(),
    "empty": Answer(status=200, headers=JS),
    "HTML": Answer(status=200, headers={"Content-Type": "text/html"}, body="<html>"),
    "HTML with the type of a script": Answer(status=200, headers=JS, body=b"\xef\xbb\xbf <!doctype html>"),
    "no type": Answer(status=200, body="let a"),
    "an image": Answer(status=200, headers={"Content-Type": "image/gif"}, body="let a"),
    "too large": Answer(status=200, headers=JS, body=b"a" * (upstream.MAX_BYTES + 1)),
    "bomb": Answer(
        status=200, headers={**JS, "Content-Encoding": "gzip"}, body=gzip.compress(b"a" * (upstream.MAX_BYTES + 1))
    ),
    "broken gzip": Answer(status=200, headers={**JS, "Content-Encoding": "gzip"}, body=gzip.compress(b"a" * 99)[:-9]),
    "no gzip": Answer(status=200, headers={**JS, "Content-Encoding": "gzip"}, body="let a"),
    "two gzips": Answer(status=200, headers={**JS, "Content-Encoding": "gzip"}, body=gzip.compress(b"a") * 2),
    "unknown encoding": Answer(status=200, headers={**JS, "Content-Encoding": "br"}, body="let a"),
}
MALFORMED = {
    "HTML": "<html>",
    "empty": "",
    "no object": "[]",
    "null": "null",
    "no integrations": "{}",
    "integrations of another type": '{"integrations": []}',
    "integration of another type": '{"integrations": {"Segment.io": true}}',
    "plugins of another type": '{"integrations": {}, "remotePlugins": {}}',
    "cut": '{"integrations": {}',
    "NaN": '{"integrations": {}, "a": NaN}',
    "too deep": '{"integrations": {}, "a": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "a number without end": '{"integrations": {}, "a": ' + "9" * 5_000 + "}",
    "no UTF-8": b'{"integrations": {}, "a": "\xff"}',
}


def never_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "FRESH", 0.0)


def without_respite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "RESPITE", 0.0)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_fault_of_the_cdn_is_never_passed_on(segment: LocalSegment, fault: Answer) -> None:
    segment.answer_with(fault, path=LIBRARY_UPSTREAM)
    response = fetch(script_url())
    assert response.status_code == (404 if fault.status in (403, 404) else 502)
    assert (response.content, response["Cache-Control"]) == (b"", "no-store")
    assert asked(segment) == [LIBRARY_UPSTREAM]


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_library_is_served_stale_through_every_fault(
    segment: LocalSegment, fault: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    never_fresh(monkeypatch)
    before = fetch(script_url())
    segment.answer_with(fault, path=LIBRARY_UPSTREAM)
    after = fetch(script_url())
    assert (after.status_code, after.content) == (200, before.content)
    assert dict(after.headers) == dict(before.headers)
    assert len(asked(segment)) == 2


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_malformed_settings_are_never_passed_on(
    segment: LocalSegment, body: str | bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    never_fresh(monkeypatch)
    without_respite(monkeypatch)
    segment.answer_with(Answer(status=200, headers={"Content-Type": "application/json"}, body=body), path="/v1/")
    assert fetch(settings_url()).status_code == 502
    good = fetch(settings_url())
    assert good.status_code == 200
    segment.answer_with(Answer(status=200, headers={"Content-Type": "application/json"}, body=body), path="/v1/")
    assert fetch(settings_url()).content == good.content
    assert len(asked(segment)) == 3


def test_redirect_is_not_followed(segment: LocalSegment) -> None:
    with LocalSegment() as elsewhere:
        segment.answer_with(Answer.redirect(elsewhere.url + LIBRARY_UPSTREAM), path="/")
        assert fetch(script_url()).status_code == 502
        assert elsewhere.requests == []


def test_cdn_that_is_not_there(segment: LocalSegment) -> None:
    fetch(script_url())
    segment.stop()
    assert fetch(script_url()).status_code == 200
    assert fetch(settings_url()).status_code == 502


def test_cdn_that_hangs_holds_nobody_for_long(segment: LocalSegment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "READ_TIMEOUT", 0.2)
    segment.answer_with(Answer.hang(30), path=LIBRARY_UPSTREAM)
    start = time.monotonic()
    assert fetch(script_url()).status_code == 502
    assert time.monotonic() - start < 5


def test_what_has_failed_is_not_asked_for_again_at_once(segment: LocalSegment, monkeypatch: pytest.MonkeyPatch) -> None:
    segment.answer_with(Answer(status=500), times=None, path="/")
    assert [fetch(script_url()).status_code for _ in range(3)] == [502] * 3
    assert len(asked(segment)) == 1
    segment.answer_normally()
    monkeypatch.setattr(time, "time", _later(store_module.RESPITE + 1))
    assert fetch(script_url()).status_code == 200


def test_fresh_file_is_not_asked_for_and_a_stale_one_once(
    segment: LocalSegment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for later, requests in [(0.0, 1), (store_module.FRESH - 5, 1), (store_module.FRESH + 1, 2)]:
        monkeypatch.setattr(time, "time", _later(later))
        fetch(script_url())
        fetch(script_url())
        assert len(asked(segment)) == requests


def test_file_whose_name_has_its_hash_is_not_asked_for_again(
    segment: LocalSegment, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(bundle_url())
    monkeypatch.setattr(time, "time", _later(86_400))
    assert fetch(bundle_url()).status_code == 200
    assert len(asked(segment)) == 1


def _later(seconds: float) -> Any:
    # Cache entries expire by the same clock; they live for longer than what is tried here.
    now = time.time()
    return lambda: now + seconds


def test_revalidation_sends_the_cdns_etag_and_keeps_what_has_not_changed(
    segment: LocalSegment, monkeypatch: pytest.MonkeyPatch
) -> None:
    never_fresh(monkeypatch)
    segment.answer_with(Answer(status=200, headers={**JS, "ETag": 'W/"1"'}, body="let a"), path="/")
    segment.answer_with(Answer(status=304), path="/")
    segment.answer_with(Answer(status=200, headers={**JS, "ETag": '"2"'}, body="let b"), path="/")
    segment.answer_with(Answer(status=304), path="/")
    assert [fetch(script_url()).content for _ in range(4)] == [b"let a", b"let a", b"let b", b"let b"]
    assert [each.headers["If-None-Match"] for each in segment.requests] == [None, 'W/"1"', 'W/"1"', '"2"']


def test_compressed_and_plain_upstream_give_the_same_answer(segment: LocalSegment) -> None:
    body = "let a = 'é';" * 9
    packed = Answer(status=200, headers={**JS, "Content-Encoding": "gzip"}, body=gzip.compress(body.encode()))
    segment.answer_with(packed, path="/next-integrations/actions/a/")
    segment.answer_with(Answer(status=200, headers=JS, body=body), path="/next-integrations/actions/b/")
    first, second = (fetch(integration_url(f"actions/{name}/0123456789abcdef.js")) for name in "ab")
    assert first.content == second.content == body.encode()
    assert first["ETag"] == second["ETag"]


@pytest.mark.parametrize("known", [False, True], ids=["cold", "stale"])
def test_stampede_of_visitors_is_one_request_upstream(
    segment: LocalSegment, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    if known:
        monkeypatch.setattr(store_module, "FRESH", 0.0)
        fetch(script_url())
        monkeypatch.undo()
    segment.answer_with(Answer.slow(0.5), path=LIBRARY_UPSTREAM)
    visitors = 40
    together = threading.Barrier(visitors)

    def visit(_: int) -> tuple[int, float]:
        together.wait()
        start = time.monotonic()
        return fetch(script_url()).status_code, time.monotonic() - start

    with ThreadPoolExecutor(visitors) as pool:
        results = list(pool.map(visit, range(visitors)))
    assert {status for status, _ in results} == {200}
    assert len(asked(segment)) == 1 + known
    if known:  # one of them has waited for the new one
        assert sum(seconds > 0.45 for _, seconds in results) < visitors / 2


def test_stampede_on_a_cdn_that_is_down_is_one_request_upstream(segment: LocalSegment) -> None:
    segment.answer_with(Answer(status=500, delay=0.3), times=None, path=LIBRARY_UPSTREAM)
    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(lambda _: fetch(script_url()).status_code, range(20)))
    assert set(statuses) == {502}
    assert len(asked(segment)) == 1


def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests go to either in turn. A Store is all that a process has; the cache they share."""
    stores = itertools.cycle([Store(), Store()])

    def get(file: File, place: Place) -> Entry:
        return next(stores).get(file, place)

    monkeypatch.setattr("segment_fallback.cdn.views.store.get", get)


def test_other_process_waits_for_the_one_that_fetches(segment: LocalSegment, monkeypatch: pytest.MonkeyPatch) -> None:
    two_processes(monkeypatch)
    segment.answer_with(Answer.slow(0.5), path=LIBRARY_UPSTREAM)
    with ThreadPoolExecutor(10) as pool:
        statuses = list(pool.map(lambda _: fetch(script_url()).status_code, range(10)))
    assert set(statuses) == {200}
    assert len(asked(segment)) == 1


def test_other_process_serves_stale_meanwhile(segment: LocalSegment, monkeypatch: pytest.MonkeyPatch) -> None:
    two_processes(monkeypatch)
    monkeypatch.setattr(store_module, "FRESH", 0.0)
    fetch(script_url())
    segment.answer_with(Answer.slow(3), path=LIBRARY_UPSTREAM)
    with ThreadPoolExecutor(1) as pool:
        fetching = pool.submit(fetch, script_url())
        while len(asked(segment)) < 2:
            time.sleep(0.01)
        start = time.monotonic()
        assert fetch(script_url()).status_code == 200
        assert time.monotonic() - start < 2
        assert fetching.result().status_code == 200
    assert len(asked(segment)) == 2


def test_process_that_died_while_it_fetched_holds_nobody_for_ever(
    segment: LocalSegment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "WAIT", 0.2)
    monkeypatch.setattr(store_module, "LEASE", 1)
    dead = Store()
    monkeypatch.setattr(dead, "_fetch", _killed)
    monkeypatch.setattr(dead, "_cache", _without_delete(dead))
    monkeypatch.setattr("segment_fallback.cdn.views.store.get", dead.get)
    with pytest.raises(SystemExit):
        fetch(script_url())
    monkeypatch.setattr("segment_fallback.cdn.views.store.get", Store().get)
    assert fetch(script_url()).status_code == 502
    assert asked(segment) == []
    deadline = time.monotonic() + 10
    while fetch(script_url()).status_code != 200:
        assert time.monotonic() < deadline


def _killed(*args: object) -> None:
    raise SystemExit


def _without_delete(store: Store) -> Any:
    own = store._cache
    return lambda operation, *arguments: None if operation == "delete" else own(operation, *arguments)


class Down:
    """A cache whose server is down."""

    def __init__(self, *args: object) -> None:
        pass

    def __getattr__(self, name: str) -> object:
        def fail(*args: object, **kwargs: object) -> None:
            raise ConnectionError(name)

        return fail if name in ("get", "set", "add", "delete") else lambda *args, **kwargs: None


@pytest.mark.parametrize("alias", ["down", "no such alias"])
def test_without_a_cache_files_are_served_all_the_same(
    segment: LocalSegment, settings: Any, caplog: Any, alias: str
) -> None:
    settings.CACHES = {**settings.CACHES, "down": {"BACKEND": f"{__name__}.Down"}}
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "CDN_CACHE": alias}
    segment.answer_with(Answer.slow(0.3), path=LIBRARY_UPSTREAM)
    with ThreadPoolExecutor(10) as pool:
        statuses = list(pool.map(lambda _: fetch(script_url()).status_code, range(10)))
    assert set(statuses) == {200}
    assert len(asked(segment)) < 10
    assert [record.message for record in caplog.records if "not cached" in record.message] != []


@pytest.mark.parametrize("strange", ["text", 7, (1, 2)])
def test_strange_thing_in_the_cache_is_fetched_anew(segment: LocalSegment, strange: object) -> None:
    fetch(script_url())
    cache: Any = caches["default"]
    keys = [key.split(":", 2)[2] for key in cache._cache]
    for key in keys:
        cache.set(key, strange)
    assert fetch(script_url()).status_code == 200
    assert len(asked(segment)) == 2


def test_made_up_names_are_asked_for_only_so_often(segment: LocalSegment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "NEW_NAMES", 5)
    monkeypatch.setattr(time, "monotonic", _frozen())
    statuses = [fetch(bundle_url(f"a{number}.bundle.js")).status_code for number in range(9)]
    assert statuses == [404] * 5 + [502] * 4
    assert fetch(bundle_url("a0.bundle.js")).status_code == 404  # known, and not asked for again
    assert fetch(script_url()).status_code == fetch(settings_url()).status_code == 200
    assert len(asked(segment)) == 7


def _frozen() -> Any:
    now = time.monotonic()
    return lambda: now


def test_failure_is_logged_once_and_without_the_write_key(
    segment: LocalSegment, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    never_fresh(monkeypatch)
    without_respite(monkeypatch)
    with caplog.at_level(logging.INFO, "segment_fallback"):
        fetch(script_url())
        segment.stop()
        for _ in range(3):
            fetch(script_url())
            fetch(settings_url())
    assert [record.message for record in caplog.records if record.name == "segment_fallback"] == [
        "analytics.js of source 'default': not to be had from CDN_HOST, served stale: ConnectionError",
        "settings of source 'default': not to be had from CDN_HOST, not served: ConnectionError",
    ]
    assert WRITE_KEY not in caplog.text
    assert [record for record in caplog.records if record.name == "django.request"] == []


def test_visitor_waits_only_so_long_for_what_another_fetches(
    segment: LocalSegment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "WAIT", 0.05)
    segment.answer_with(Answer.slow(2), path=LIBRARY_UPSTREAM)
    with ThreadPoolExecutor(1) as pool:
        fetching = pool.submit(fetch, script_url())
        while not asked(segment):
            time.sleep(0.01)
        start = time.monotonic()
        assert fetch(script_url()).status_code == 502
        assert time.monotonic() - start < 1.5
        assert fetching.result().status_code == 200


def test_names_that_do_not_exist_do_not_stay_in_the_cache(
    segment: LocalSegment, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache: Any = caches["default"]
    fetch(bundle_url("a.js"))
    fetch(bundle_url())
    left = sorted(expires - time.time() for expires in cache._expire_info.values())
    assert left[0] <= store_module.KEEP_NEWS < 86_400 < left[1]


def test_names_that_do_not_exist_do_not_fill_the_log(segment: LocalSegment, caplog: Any) -> None:
    for number in range(3):
        fetch(bundle_url(f"a{number}.js"))
    assert [record for record in caplog.records if record.name == "segment_fallback"] == []
    assert SETTINGS_UPSTREAM not in asked(segment)
