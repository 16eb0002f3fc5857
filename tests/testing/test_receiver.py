"""The local Segment must refuse what Segment refuses: what it lets pass, our other tests cannot find."""

from __future__ import annotations

import base64
import gzip
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import requests
from segment.analytics.client import Client
from segment.analytics.request import APIError
from segment.analytics.request import post as sdk_post

from segment_fallback.testing import Answer, LocalSegment, Received
from segment_fallback.testing.__main__ import main

PAGE = {"type": "page", "messageId": "m-1", "anonymousId": "a-1", "name": "Home"}


@pytest.fixture
def segment() -> Iterator[LocalSegment]:
    with LocalSegment() as segment:
        yield segment


def post(segment: LocalSegment, path: str = "/v1/batch", body: Any = None, **kwargs: Any) -> requests.Response:
    """Post JSON (or, as `data`, anything) over a connection of its own."""
    if body is not None:
        kwargs["data"] = json.dumps(body)
    kwargs.setdefault("headers", {"Content-Type": "application/json"})
    return requests.post(segment.url + path, timeout=10, allow_redirects=False, **kwargs)


def batch(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"writeKey": "wk", "sentAt": "2026-01-02T03:04:05Z", "batch": list(messages), **more}


def ids(messages: list[Received]) -> list[str | None]:
    return [received.message_id for received in messages]


# What it takes


def test_batch_is_taken_message_by_message(segment: LocalSegment) -> None:
    answer = post(segment, body=batch(PAGE, {**PAGE, "messageId": "m-2"}))

    assert (answer.status_code, answer.json()) == (200, {"success": True})
    first, second = segment.messages
    assert first.message == PAGE
    assert (first.endpoint, first.sent_at, first.write_key) == ("/v1/batch", "2026-01-02T03:04:05Z", "wk")
    assert first.headers["content-type"] == "application/json"
    assert first.received_at.tzinfo is not None
    assert second.message_id == "m-2"


@pytest.mark.parametrize(
    ("path", "type_"),
    [(f"/v1/{name}", name) for name in ("identify", "track", "page", "screen", "group", "alias")]
    + [(f"/v1/{name[0]}", name) for name in ("identify", "track", "page", "screen", "group", "alias")],
)
def test_single_endpoint_takes_its_body_and_knows_its_type(segment: LocalSegment, path: str, type_: str) -> None:
    body = {"writeKey": "wk", "messageId": "m-1", "sentAt": "now"}
    assert post(segment, path, body).status_code == 200

    [received] = segment.messages
    assert (received.message, received.type, received.sent_at) == (body, type_, "now")


def test_browser_batch_as_plain_text_is_taken(segment: LocalSegment) -> None:
    headers = {"Content-Type": "text/plain;charset=UTF-8"}
    assert post(segment, "/v1/b", batch(PAGE), headers=headers).status_code == 200
    assert ids(segment.messages) == ["m-1"]


def test_metrics_are_answered_and_not_recorded(segment: LocalSegment) -> None:
    assert post(segment, "/v1/m", {"writeKey": "wk", "series": []}).status_code == 200
    assert segment.messages == []


def test_gzip_is_unpacked(segment: LocalSegment) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = post(segment, data=gzip.compress(json.dumps(batch(PAGE)).encode()), headers=headers)
    assert (answer.status_code, ids(segment.messages)) == (200, ["m-1"])


def test_what_lacks_ids_is_taken_as_segment_does(segment: LocalSegment) -> None:
    odd = {"type": "track", "messageId": ["no", "text"]}
    assert post(segment, body=batch(odd, {})).status_code == 200
    assert [received.message for received in segment.messages] == [odd, {}]
    assert segment.distinct == segment.messages


def test_official_client_delivers(segment: LocalSegment) -> None:
    client = Client("wk", host=segment.url, gzip=True)
    client.page("u-1", "Shop", "Home", message_id="m-1")
    client.track("u-1", "Bought", {"price": 3}, message_id="m-2")
    client.flush()
    client.join()

    page, track = segment.wait_for(2)
    assert (page.type, page.message["name"], track.type) == ("page", "Home", "track")
    assert page.headers["Content-Encoding"] == "gzip"


# Who may write


def basic(user: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:".encode()).decode()


@pytest.mark.parametrize(
    ("authorization", "in_body", "status"),
    [
        (None, "wk", 200),
        (basic("wk"), None, 200),
        ("Bearer token", "wk", 200),
        ("Bearer token", None, 401),
        (None, None, 401),
        (None, ["wk"], 401),
        ("Basic abcde", None, 401),
        ("Basic \xe9", None, 401),
        ("Basic /w==", None, 401),
        (basic("wk").replace("Basic", "Bearer"), None, 401),
        (basic("other"), None, 401),
        (basic("wk"), "other", 401),
    ],
)
def test_write_key_decides_who_may_write(authorization: str | None, in_body: object, status: int) -> None:
    headers = {"Content-Type": "application/json"} | ({"Authorization": authorization} if authorization else {})
    with LocalSegment(write_keys=["wk"]) as segment:
        answer = post(segment, body={"batch": [PAGE], "writeKey": in_body}, headers=headers)
        assert answer.status_code == status
        assert [received.write_key for received in segment.messages] == (["wk"] if status == 200 else [])


def test_any_write_key_will_do_but_one_there_must_be(segment: LocalSegment) -> None:
    assert post(segment, body={"batch": [PAGE]}).status_code == 401
    assert post(segment, body={"batch": [PAGE], "writeKey": "whatever"}).status_code == 200


# What it refuses


def filled(size: int) -> dict[str, str]:
    """A message of exactly `size` bytes."""
    return {"a": "x" * (size - len('{"a":""}'))}


def padded(size: int) -> bytes:
    """A batch whose body has exactly `size` bytes."""
    body = json.dumps(batch(PAGE)).encode()
    return body + b" " * (size - len(body))


def test_body_limit_is_500_kb(segment: LocalSegment) -> None:
    assert post(segment, data=padded(500 * 1024)).status_code == 200
    assert post(segment, data=padded(500 * 1024 + 1)).status_code == 400
    assert post(segment, data=padded(5_000_000)).status_code == 400
    assert (len(segment.messages), segment.requests[-1].size) == (1, 5_000_000)


def test_message_limit_is_32_kb(segment: LocalSegment) -> None:
    assert post(segment, body=batch(filled(32 * 1024))).status_code == 200
    assert post(segment, body=batch(PAGE, filled(32 * 1024 + 1))).status_code == 400
    assert len(segment.messages) == 1


def test_more_than_2500_messages_are_lost_silently(segment: LocalSegment) -> None:
    assert post(segment, body=batch(*[{}] * 2_500)).status_code == 200
    assert len(segment.messages) == 2_500
    segment.clear()
    assert post(segment, body=batch(*[{}] * 2_501)).status_code == 200
    assert segment.messages == []


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b"[]", b'{"batch": {}}', b'{"batch": [1]}', b"{}", b'{"batch": [{"a": NaN}]}'],
)
def test_what_is_no_batch_is_refused(segment: LocalSegment, body: bytes) -> None:
    headers = {"Content-Type": "application/json", "Authorization": basic("wk")}
    answer = post(segment, data=body, headers=headers)
    assert (answer.status_code, answer.json()["code"], segment.messages) == (400, "bad_request", [])


def test_form_is_refused(segment: LocalSegment) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert post(segment, body=batch(PAGE), headers=headers).status_code == 400


@pytest.mark.parametrize("data", [b"no gzip", gzip.compress(padded(900))[:-9], gzip.compress(padded(500 * 1024 + 1))])
def test_bad_truncated_or_bomb_gzip_is_refused(segment: LocalSegment, data: bytes) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert post(segment, data=data, headers=headers).status_code == 400


def test_gzip_bomb_is_not_unpacked(segment: LocalSegment) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    bomb = gzip.compress(b" " * 100_000_000, compresslevel=1)
    tracemalloc.start()
    try:
        assert post(segment, data=bomb, headers=headers).status_code == 400
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("depth", [100, 800, 900, 950, 1_000, 5_000, 100_000])
def test_deep_json_is_answered(segment: LocalSegment, depth: int) -> None:
    data = b'{"writeKey": "wk", "a": ' + b"[" * depth + b"]" * depth + b"}"
    status = post(segment, "/v1/page", data=data).status_code
    assert (status, len(segment.messages)) in ([(200, 1)] if depth == 100 else [(200, 1), (400, 0)])


def test_lone_surrogate_is_taken(segment: LocalSegment) -> None:
    assert post(segment, body=batch({"name": "\ud800"})).status_code == 200
    assert segment.messages[0].message["name"] == "\ud800"


def test_body_without_length_is_refused(segment: LocalSegment) -> None:
    assert post(segment, data=iter([b"{}"])).status_code == 411


def test_unknown_endpoint_is_not_found(segment: LocalSegment) -> None:
    assert post(segment, "/v1/nope", batch(PAGE)).status_code == 404
    assert requests.get(segment.url + "/v1/batch", timeout=10).status_code == 404


def test_official_request_reads_the_refusal(segment: LocalSegment) -> None:
    with pytest.raises(APIError) as caught:
        sdk_post("wk", segment.url, batch=[filled(33_000)])
    assert (caught.value.status, caught.value.code) == (400, "bad_request")
    assert "32768" in str(caught.value.message)


# What it says when told to


def test_instructions_queue_up_and_run_out(segment: LocalSegment) -> None:
    segment.answer_with(Answer(status=429, headers={"Retry-After": "2"}), times=2)
    segment.answer_with(Answer(status=500, body="sorry"))
    answers = [post(segment, body=batch({"messageId": str(n)})) for n in range(4)]

    assert [answer.status_code for answer in answers] == [429, 429, 500, 200]
    assert answers[0].headers["Retry-After"] == "2"
    assert answers[2].text == "sorry"
    assert ids(segment.messages) == ["3"]
    assert [request.status for request in segment.requests] == [429, 429, 500, 200]
    assert [request.messages for request in segment.requests] == [1, 1, 1, 1]


def test_instruction_for_a_path_leaves_others_alone(segment: LocalSegment) -> None:
    segment.answer_with(Answer(status=503), times=None, path="/v1/batch")
    assert post(segment, "/v1/page", {**PAGE, "writeKey": "wk"}).status_code == 200
    assert [post(segment, body=batch(PAGE)).status_code for _ in range(3)] == [503, 503, 503]
    segment.answer_normally()
    assert post(segment, body=batch(PAGE)).status_code == 200


def test_instruction_without_path_spares_cdn_metrics_and_preflight(segment: LocalSegment) -> None:
    segment.answer_with(Answer(status=503), times=None)
    settings = segment.url + "/v1/projects/wk/settings"
    assert requests.get(settings, timeout=10).status_code != 503
    assert post(segment, "/v1/m", {"writeKey": "wk"}).status_code == 200
    assert requests.options(segment.url + "/v1/p", timeout=10).status_code == 200
    segment.answer_with(Answer(status=500), path="/v1/projects/")
    assert requests.get(settings, timeout=10).status_code == 500


def test_status_can_hide_that_the_messages_were_received(segment: LocalSegment) -> None:
    segment.answer_with(Answer(status=500, received=True))
    segment.answer_with(Answer(status=200))
    assert post(segment, body=batch(PAGE)).status_code == 500
    assert post(segment, body=batch({"messageId": "lost"})).status_code == 200
    assert ids(segment.messages) == ["m-1"]


@pytest.mark.parametrize("received", [True, False])
def test_cut_resets_before_any_answer(segment: LocalSegment, received: bool) -> None:
    segment.answer_with(Answer.cut(received=received))
    with pytest.raises(requests.ConnectionError, match="reset"):
        post(segment, body=batch(PAGE))
    assert ids(segment.messages) == (["m-1"] if received else [])
    assert segment.requests[0].status is None


def test_redirect_names_its_target(segment: LocalSegment) -> None:
    segment.answer_with(Answer.redirect("http://elsewhere.test/"))
    answer = post(segment, body=batch(PAGE))
    assert (answer.status_code, answer.headers["Location"]) == (302, "http://elsewhere.test/")
    assert segment.messages == []


def test_hang_says_nothing_and_stop_ends_it(segment: LocalSegment) -> None:
    segment.answer_with(Answer.hang(600))
    failed = threading.Event()

    def hang() -> None:
        with pytest.raises(requests.ConnectionError):
            requests.post(segment.url + "/v1/batch", data=json.dumps(batch(PAGE)), timeout=600)
        failed.set()

    threads = set(threading.enumerate())
    client = threading.Thread(target=hang)
    client.start()
    deadline = time.monotonic() + 10
    while not segment.requests and time.monotonic() < deadline:
        time.sleep(0.01)
    assert segment.requests
    assert not failed.is_set()
    segment.stop()
    client.join(timeout=30)
    assert failed.is_set()
    assert segment.messages == []
    assert set(threading.enumerate()) < threads


def test_slow_answer_comes_late_and_its_messages_at_once(segment: LocalSegment) -> None:
    segment.answer_with(Answer.slow(600))
    with pytest.raises(requests.ReadTimeout):
        requests.post(segment.url + "/v1/batch", data=json.dumps(batch(PAGE)), timeout=0.5)
    assert ids(segment.wait_for(1)) == ["m-1"]

    segment.answer_with(Answer.slow(0.2))
    began = time.monotonic()
    assert post(segment, body=batch(PAGE)).json() == {"success": True}
    assert time.monotonic() - began >= 0.2


def test_poison_message_refuses_its_whole_request(segment: LocalSegment) -> None:
    segment.refuse(lambda message: message.get("messageId") == "poison")
    assert post(segment, body=batch(PAGE, {"messageId": "poison"})).status_code == 400
    assert post(segment, body=batch(PAGE)).status_code == 200
    assert ids(segment.messages) == ["m-1"]
    segment.answer_normally()
    assert post(segment, body=batch({"messageId": "poison"})).status_code == 200


@pytest.mark.parametrize(
    "wrong", [{"status": 99}, {"status": 600}, {"status": 500, "close": True}, {"delay": -1}, {"delay": float("nan")}]
)
def test_impossible_answer_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Answer(**wrong)


@pytest.mark.parametrize("wrong", [{"times": 0}, {"path": "v1/batch"}])
def test_impossible_instruction_is_refused(segment: LocalSegment, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        segment.answer_with(Answer(status=500), **wrong)


# What it remembers


@pytest.mark.parametrize(
    ("context", "way"),
    [
        ({"library": {"name": "analytics.js", "way": "pixel"}}, "javascript"),
        ({"library": {"name": "django-segment-fallback", "way": "pixel"}}, "pixel"),
        ({"library": {"name": "analytics-python"}}, "server"),
        ({"library": "odd"}, "server"),
        (None, "server"),
    ],
)
def test_way_tells_how_a_message_came(segment: LocalSegment, context: object, way: str) -> None:
    post(segment, body=batch({"context": context}))
    assert segment.messages[0].way == way


def test_distinct_keeps_the_first_of_each_id_in_order(segment: LocalSegment) -> None:
    sent = [("a", 1), ("b", 2), ("a", 3), ("b", 4), ("c", 5)]
    post(segment, body=batch(*({"messageId": key, "n": n} for key, n in sent)))
    assert [received.message["n"] for received in segment.messages] == [1, 2, 3, 4, 5]
    assert [received.message["n"] for received in segment.distinct] == [1, 2, 5]


def test_wait_for_counts_one_type(segment: LocalSegment) -> None:
    late = threading.Timer(0.1, post, [segment, "/v1/page", {**PAGE, "writeKey": "wk"}])
    post(segment, body=batch({"type": "track"}))
    late.start()
    began = time.monotonic()
    assert ids(segment.wait_for(1, timeout=60, type="page")) == ["m-1"]
    assert time.monotonic() - began < 30
    late.join()


def test_wait_for_tells_what_arrived_instead(segment: LocalSegment) -> None:
    post(segment, body=batch(PAGE))
    with pytest.raises(AssertionError, match=r"0 of 1 track messages.*page m-1.*POST /v1/batch 200"):
        segment.wait_for(1, timeout=0.01, type="track")


def test_clear_forgets_messages_and_requests(segment: LocalSegment) -> None:
    post(segment, body=batch(PAGE))
    segment.clear()
    assert (segment.messages, segment.requests) == ([], [])


# How it serves


def test_connection_is_kept_alive_also_after_an_error(segment: LocalSegment) -> None:
    with closing(HTTPConnection("127.0.0.1", segment.port, timeout=10)) as client:
        sockets = []
        for data in (b"{", b"x" * 600_000, json.dumps(batch(PAGE)).encode()):
            client.request("POST", "/v1/batch", data, {"Content-Type": "application/json"})
            client.getresponse().read()
            sockets.append(client.sock)
    assert sockets[0] is not None
    assert sockets == [sockets[0]] * 3


def test_client_that_leaves_in_the_middle_is_no_request(segment: LocalSegment) -> None:
    with socket.create_connection(("127.0.0.1", segment.port)) as client:
        client.sendall(b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n{}")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""
    assert segment.requests == []


def test_fault_of_a_predicate_is_logged_and_a_client_that_leaves_is_not(
    segment: LocalSegment, caplog: pytest.LogCaptureFixture
) -> None:
    read, left = threading.Event(), threading.Event()

    def wait_until_it_left(message: dict[str, Any]) -> bool:
        read.set()
        return not left.wait(10)

    segment.refuse(wait_until_it_left)
    body = json.dumps(batch(PAGE)).encode()
    with socket.create_connection(("127.0.0.1", segment.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert read.wait(10)
    left.set()
    segment.stop()
    assert caplog.text == ""

    segment.answer_normally()
    segment.refuse(lambda message: bool(message["absent"]))
    segment.start()
    with pytest.raises(requests.ConnectionError):
        post(segment, body=batch(PAGE))
    segment.stop()
    assert "could not answer" in caplog.text


def test_stop_closes_idle_connections_and_start_takes_the_same_port(segment: LocalSegment) -> None:
    url = segment.url
    with socket.create_connection(("127.0.0.1", segment.port)) as idle:
        idle.sendall(b"OPTIONS /v1/p HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in idle.recv(1000)
        segment.stop()
        assert idle.recv(1000) == b""
    with pytest.raises(requests.ConnectionError):
        post(segment, body=batch(PAGE))
    segment.start()
    assert segment.url == url
    assert post(segment, body=batch(PAGE)).status_code == 200


def test_start_twice_is_an_error_and_stop_twice_is_not(segment: LocalSegment) -> None:
    with pytest.raises(RuntimeError, match="already"):
        segment.start()
    segment.stop()
    segment.stop()


def test_many_clients_at_once_lose_nothing(segment: LocalSegment) -> None:
    def send(name: int) -> None:
        for n in range(20):
            post(segment, body=batch({"messageId": f"{name}-{n}"}))

    threads = [threading.Thread(target=send, args=(name,)) for name in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(segment.distinct) == len(segment.requests) == 320


def test_pages_of_other_origins_may_use_the_api(segment: LocalSegment) -> None:
    preflight = requests.options(segment.url + "/v1/p", headers={"Origin": "https://shop.example"}, timeout=10)
    allowed = preflight.headers["Access-Control-Allow-Headers"]
    assert {"Authorization", "Content-Type"} <= {name.strip() for name in allowed.split(",")}
    segment.answer_with(Answer(status=500))
    for path in ("/v1/p", "/v1/p", "/nope"):
        assert post(segment, path, {}).headers["Access-Control-Allow-Origin"] == "*"


# The control API


def test_control_reads_messages_since(segment: LocalSegment) -> None:
    url = segment.url + "/_local/messages"
    post(segment, body=batch(PAGE, {"messageId": "m-2"}))
    content = requests.get(url, timeout=10).json()
    assert content["next"] == 2
    assert content["messages"][0] == {
        "message": PAGE,
        "type": "page",
        "way": "server",
        "endpoint": "/v1/batch",
        "received_at": segment.messages[0].received_at.isoformat(),
    }
    later = requests.get(url + "?since=1", timeout=10).json()["messages"]
    assert [entry["message"]["messageId"] for entry in later] == ["m-2"]
    assert requests.delete(url, timeout=10).status_code == 200
    assert segment.messages == []
    assert requests.get(url + "?since=-1", timeout=10).status_code == 400


def test_control_instructs_and_drops_instructions(segment: LocalSegment) -> None:
    url = segment.url + "/_local/answer"
    wanted = {"status": 429, "headers": {"Retry-After": "2"}, "times": None, "path": "/v1/batch"}
    assert requests.post(url, json=wanted, timeout=10).status_code == 200
    assert [post(segment, body=batch(PAGE)).headers.get("Retry-After") for _ in range(2)] == ["2", "2"]
    assert requests.delete(url, timeout=10).status_code == 200
    assert post(segment, body=batch(PAGE)).status_code == 200
    assert all(request.path == "/v1/batch" for request in segment.requests)


@pytest.mark.parametrize("wanted", [[], {"stat": 5}, {"status": "5"}, {"status": 5}, {"times": 0}, {"body": 1}])
def test_control_refuses_wrong_instructions(segment: LocalSegment, wanted: object) -> None:
    assert requests.post(segment.url + "/_local/answer", json=wanted, timeout=10).status_code == 400
    assert post(segment, body=batch(PAGE)).status_code == 200


def test_control_is_closed_to_pages_of_other_origins(segment: LocalSegment) -> None:
    url = segment.url + "/_local/messages"
    for method, origin, status in [
        ("GET", segment.url, 200),
        ("GET", "https://evil.example", 403),
        ("DELETE", segment.url, 403),
        ("DELETE", "https://evil.example", 403),
    ]:
        answer = requests.request(method, url, headers={"Origin": origin}, timeout=10)
        assert answer.status_code == status
        assert "Access-Control-Allow-Origin" not in answer.headers
    assert requests.get(segment.url + "/_local/nope", timeout=10).status_code == 404


# The CDN


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """An npm package as small as can be."""
    umd = tmp_path / "node_modules" / "@segment" / "analytics-next" / "dist" / "umd"
    umd.mkdir(parents=True)
    (umd / "standalone.js").write_text('window.analyticsWriteKey = "__WRITE_KEY__"')
    (umd / "407.bundle.abc.js").write_text("bundle")
    (umd.parent / "secret.js").write_text("secret")
    return umd.parent.parent


def get(segment: LocalSegment, path: str, **headers: str) -> requests.Response:
    return requests.get(segment.url + path, headers=headers, timeout=10)


def test_cdn_serves_library_settings_and_bundles(package: Path) -> None:
    with LocalSegment(analytics_js=package, write_keys=["wk"]) as segment:
        assert segment.has_analytics_js
        library = get(segment, "/analytics.js/v1/wk/analytics.min.js")
        assert library.text == 'window.analyticsWriteKey = "wk"'
        assert library.headers["Content-Type"].startswith("application/javascript")
        assert get(segment, "/analytics-next/bundles/407.bundle.abc.js").text == "bundle"
        assert get(segment, "/analytics-next/bundles/408.bundle.abc.js").status_code == 404
        assert get(segment, "/v1/projects/other/settings").status_code == 404
        integration = get(segment, "/v1/projects/wk/settings", Host="localhost:1").json()["integrations"]
        assert integration["Segment.io"]["apiHost"] == "localhost:1/v1"
        assert (integration["Segment.io"]["apiKey"], integration["Segment.io"]["protocol"]) == ("wk", "http")


@pytest.mark.parametrize("name", ["../secret.js", "%2e%2e/secret.js", "..%2fsecret.js", ".."])
def test_cdn_serves_nothing_outside_its_folder(package: Path, name: str) -> None:
    with (
        LocalSegment(analytics_js=package) as segment,
        socket.create_connection(("127.0.0.1", segment.port)) as client,
    ):
        client.sendall(f"GET /analytics-next/bundles/{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 404")


def test_head_has_no_body(package: Path) -> None:
    with (
        LocalSegment(analytics_js=package) as segment,
        socket.create_connection(("127.0.0.1", segment.port)) as client,
    ):
        client.sendall(b"HEAD /analytics.js/v1/wk/analytics.min.js HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        with client.makefile("rb") as stream:
            answer = stream.read()
    assert b"Content-Length: 31\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


def test_package_is_found_by_folder_environment_or_working_directory(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SEGMENT_ANALYTICS_NEXT", raising=False)
    for given in (package, tmp_path / "node_modules", tmp_path):
        assert LocalSegment(analytics_js=given).analytics_js == package.resolve()
    monkeypatch.chdir(package.parent)
    assert LocalSegment().analytics_js == package.resolve()
    monkeypatch.chdir("/")
    assert not LocalSegment().has_analytics_js
    monkeypatch.setenv("SEGMENT_ANALYTICS_NEXT", str(package))
    assert LocalSegment().has_analytics_js
    with pytest.raises(FileNotFoundError, match="analytics-next"):
        LocalSegment(analytics_js=package / "dist")


def test_cdn_without_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEGMENT_ANALYTICS_NEXT", raising=False)
    monkeypatch.chdir("/")
    with LocalSegment() as segment:
        answer = get(segment, "/analytics.js/v1/wk/analytics.min.js")
        assert answer.status_code == 404
        assert "npm install @segment/analytics-next" in answer.json()["message"]


# The command


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_serves_until_told_to_stop(package: Path, number: signal.Signals) -> None:
    command = [
        sys.executable,
        "-m",
        "segment_fallback.testing",
        "--port",
        "0",
        "--analytics-js",
        str(package),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            url = said.split()[4]
            assert said == f"Local Segment listens on {url} (analytics.js: {package.resolve()})\n"
            assert requests.post(url + "/v1/batch", data=json.dumps(batch(PAGE)), timeout=10).ok
            assert requests.get(url + "/_local/messages", timeout=10).json()["next"] == 1
            os.kill(process.pid, number)
            assert process.wait(timeout=10) == 0
        finally:
            process.kill()


def test_command_says_that_the_port_is_taken(segment: LocalSegment, capsys: pytest.CaptureFixture[str]) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(SystemExit, match="2"):
            main(["--port", str(segment.port)])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert "in use" in capsys.readouterr().err
