"""Our own endpoints behind an edge: what is a visitor's is never kept, what is public is, and who asks is known."""

from __future__ import annotations

import json

import pytest
from django.urls import reverse

from segment_fallback.message import new_message_id
from tests.edge.conftest import proxies
from tests.edge.servers import Edge
from tests.edge.visits import arrived, view


def test_pixel_is_never_kept(edge: Edge, page: str) -> None:
    seen = view(edge, page)
    _, path, headers = seen.pixel()
    answers = [edge.get(path, headers) for _ in range(2)]
    assert [(answer.status, len(answer.body), answer.is_hit) for answer in answers] == [(200, 43, False)] * 2
    assert len({answer.headers["Set-Cookie"] for answer in answers}) == 2, "each gets an anonymousId of his own"
    assert len(edge.log("requests", path)) == 2
    assert len(arrived(edge, page)) == 1


def test_noscript_pixel_counts_every_visitor_though_all_ask_for_one_url(edge: Edge, page: str) -> None:
    seen = view(edge, page)
    for _ in range(3):
        answer = edge.get(seen.noscript, seen.headers(search="?utm_source=mail"))
        assert (answer.headers["Content-Type"], answer.is_hit) == ("image/gif", False)
    events = arrived(edge, page)
    assert len({event["messageId"] for event in events}) == 3
    assert len({event["anonymousId"] for event in events}) == 3
    assert [event["context"]["campaign"] for event in events] == [{"source": "mail"}] * 3


def test_who_am_i_tells_each_visitor_of_himself(edge: Edge, page: str) -> None:
    seen = view(edge, page)
    told = []
    for cookie in (edge.sign_in("ada"), edge.sign_in("bob"), "", edge.sign_in("ada")):
        answer = edge.get(seen.config["me"], seen.headers(cookie))
        assert (answer.status, answer.headers["Cache-Control"], answer.is_hit) == (200, "private, no-store", False)
        told.append(json.loads(answer.body)["userId"])
    ada, bob, nobody, ada_again = told
    assert len({ada, bob}) == 2
    assert (nobody, ada_again) == (None, ada)


def test_tracking_api_is_never_kept(edge: Edge, page: str) -> None:
    seen = view(edge, page)
    path = f"{seen.config['api']}t"
    headers = {**seen.headers(), "Content-Type": "text/plain"}
    for _ in range(2):
        event = {"event": "Bought", "messageId": new_message_id(), "context": {"page": {"path": page}}}
        answer = edge.get(path, headers, method="POST", body=json.dumps({**event, "writeKey": seen.config["k"]}))
        assert (json.loads(answer.body), answer.is_hit) == ({"success": True}, False)
    assert len(arrived(edge, page)) == 2
    refused = [edge.get(path, headers) for _ in range(2)]
    assert [(answer.status, answer.is_hit) for answer in refused] == [(405, False)] * 2
    assert len(edge.log("requests", path)) == 4


def test_event_has_the_visitors_own_address_and_not_one_that_he_makes_up(edge: Edge, page: str) -> None:
    _, path, headers = view(edge, page).pixel()
    edge.get(path, {**headers, "X-Forwarded-For": "203.0.113.9"}, source="127.0.0.7")
    [event] = arrived(edge, page)
    assert event["context"]["ip"] == "127.0.0.7"


def test_event_of_a_shared_page_has_the_campaign(edge: Edge, page: str) -> None:
    seen = view(edge, page)
    search = "?utm_source=news&utm_campaign=May%20sale&gclid=1"
    assert edge.get(page + search).status == 200
    message_id, path, headers = seen.pixel(search=search)
    edge.get(path, headers)
    [event] = arrived(edge, page)
    assert event["messageId"] == message_id
    assert event["context"]["campaign"] == {"source": "news", "name": "May sale"}
    assert event["context"]["page"]["url"] == edge.url + page + search


@proxies
@pytest.mark.parametrize("encodings", ["gzip, deflate, br, zstd", "br, gzip;q=0.9", "identity"])
def test_library_and_its_settings_are_hits_from_the_second_request_on(edge: Edge, page: str, encodings: str) -> None:
    config = view(edge, page).config
    for path in (config["u"], reverse("segment_fallback:settings", args=[config["c"], config["k"]])):
        headers = {"Accept-Encoding": encodings, "Cookie": f"sessionid={new_message_id()}"}
        first, second = edge.get(path, headers), edge.get(f"{path}?{new_message_id()}", headers)
        assert (first.status, second.status, second.is_hit) == (200, 200, True)
        assert first.body == second.body
        assert second.headers["Content-Encoding"] == ("gzip" if "gzip" in encodings else None)
        assert not any(line["COOKIE"] for line in edge.log("requests", path))
    assert len(edge.log("requests", config["u"])) <= 2, "one for those who take gzip, one for those who do not"


@proxies
def test_settings_of_the_library_are_each_hosts_own(edge: Edge, page: str) -> None:
    config = view(edge, page).config
    path = reverse("segment_fallback:settings", args=[config["c"], config["k"]])
    for host in (f"127.0.0.1:{edge.port}", "shop.example", f"127.0.0.1:{edge.port}"):
        settings = json.loads(edge.get(path, {"Host": host}).body)
        assert settings["integrations"]["Segment.io"]["apiHost"].startswith(f"{host}/")
