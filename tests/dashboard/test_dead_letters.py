"""Dead letters on the dashboard: shown, replayed, deleted; by whom, and only by POST."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.contrib.messages import get_messages
from django.test import Client
from pytest_django import Settings

from segment_fallback.buffers import buffers
from segment_fallback.dashboard import letters
from segment_fallback.message import encode
from segment_fallback.wording import counted
from tests.dashboard.conftest import signed_in

URL = "/admin/segment_fallback/dashboard/"
ACT = f"{URL}dead-letters/"


@pytest.fixture(autouse=True)
def buried(site: None) -> None:
    for name, reason in (("m1", "HTTP 400"), ("m2", "HTTP 400"), ("m3", "HTTP 400 later"), ('m"<4>', "plan: <b>")):
        message = encode({"type": "track", "event": f"Order {name}", "messageId": name, "userId": "ada@example.org"})
        buffers["default"].bury([message], reason)


def dead() -> list[str]:
    return [letter.message.message_id for letter in buffers["default"].dead_letters()]


def post(client: Client, **form: Any) -> Any:
    """What the page's forms send, with the page's token."""
    token = client.get(URL).context["csrf_token"]
    return client.post(ACT, {"buffer": "default", "csrfmiddlewaretoken": str(token), **form})


def history() -> list[Any]:
    """The admin's. Its model is there only while the admin is installed."""
    from django.contrib.admin.models import LogEntry

    return list(LogEntry.objects.all())


def said(response: Any) -> list[str]:
    return [str(message) for message in get_messages(response.wsgi_request)]


def test_letters_are_shown_without_what_they_say_of_a_person(viewer: Client) -> None:
    page = viewer.get(URL).content.decode()
    assert "Order m1" in page
    assert "plan: &lt;b&gt;" in page
    assert "ada@example.org" not in page


def test_who_may_only_look_finds_no_buttons_and_is_refused(viewer: Client) -> None:
    page = viewer.get(URL).content.decode()
    assert ACT not in page
    assert "Replay</button>" not in page
    strict = Client()
    strict.force_login(User.objects.get(username="viewer"))
    assert strict.post(ACT, {"buffer": "default", "action": "replay", "id": "m1"}).status_code == 403
    assert len(dead()) == 4


def test_second_permission_is_enough_together_with_the_first(viewer: Client) -> None:
    user = User.objects.get(username="viewer")
    user.user_permissions.add(Permission.objects.get(codename="manage_dead_letters"))
    post(signed_in("viewer"), action="replay", id="m1")
    assert "m1" not in dead()
    user.user_permissions.remove(Permission.objects.get(codename="view_dashboard"))
    blind = Client()
    blind.force_login(User.objects.get(username="viewer"))
    assert blind.post(ACT, {"buffer": "default", "action": "replay", "id": "m2"}).status_code == 403


def test_nothing_is_written_by_get_nor_without_a_token(boss: Client) -> None:
    assert boss.get(ACT, {"buffer": "default", "action": "replay", "id": "m1"}).status_code == 405
    assert boss.post(ACT, {"buffer": "default", "action": "replay", "id": "m1"}).status_code == 403
    assert len(dead()) == 4


def test_chosen_letters_wait_again(boss: Client) -> None:
    response = post(boss, action="replay", id=["m1", 'm"<4>'])
    assert (response.status_code, response["Location"]) == (302, URL)
    assert said(response) == ["2 dead letters replayed; the next flush sends what waits."]
    assert dead() == ["m2", "m3"]
    assert sorted(each.message_id for each in buffers["default"].waiting_messages()) == ['m"<4>', "m1"]
    [entry] = history()
    assert entry.get_change_message() == "Replayed 2 dead letters of buffer 'default'."
    assert entry.user.get_username() == "admin"
    assert "2 dead letters" in boss.get("/admin/").content.decode()


def test_letters_of_exactly_one_reason_wait_again(boss: Client) -> None:
    assert said(post(boss, **{"replay-reason": "HTTP 400"})) == [
        "2 dead letters replayed; the next flush sends what waits."
    ]
    assert dead() == ["m3", 'm"<4>']


@pytest.mark.parametrize(
    ("form", "number"), [({"action": "delete", "id": ["m1", "m3"]}, 2), ({"delete-reason": "plan: <b>"}, 1)]
)
def test_delete_asks_first(boss: Client, form: dict[str, Any], number: int) -> None:
    asked = post(boss, **form)
    assert asked.status_code == 200
    assert len(dead()) == 4
    page = asked.content.decode()
    assert f"{number} dead letter" in page
    assert "<b>" not in page.split('class="sf"')[1].split("<form")[0]
    confirmed = {"reason": "plan: <b>", "action": "delete"} if "delete-reason" in form else form
    assert said(post(boss, confirmed="yes", **confirmed)) == [f"{counted(number, 'dead letter')} deleted."]
    assert len(dead()) == 4 - number
    assert buffers["default"].depth() == 0
    assert history()[0].is_deletion()


@pytest.mark.parametrize(
    "form",
    [{"action": "burn", "id": "m1"}, {"action": "replay", "id": "m1", "buffer": "elsewhere"}, {"id": "m1"}],
)
def test_form_that_is_not_ours_is_not_found(boss: Client, form: dict[str, Any]) -> None:
    assert post(boss, **form).status_code == 404
    assert len(dead()) == 4


def test_nothing_chosen_changes_nothing(boss: Client) -> None:
    for action in ("replay", "delete"):
        assert said(post(boss, action=action)) == ["No dead letter was chosen."]
    assert said(post(boss, action="replay", id="unknown")) == [
        "0 dead letters replayed; the next flush sends what waits."
    ]
    assert len(dead()) == 4
    assert history() == []


def test_too_many_for_one_request_say_so(boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("segment_fallback.admin", "segment_fallback.dashboard.letters"):
        monkeypatch.setattr(f"{module}.AT_ONCE", 2)
    response = post(boss, action="replay", id=["m1", "m2", "m3"])
    assert said(response) == [
        "2 dead letters replayed; the next flush sends what waits. There may be more of them: do it again."
    ]
    assert len(dead()) == 2


def test_page_shows_the_first_and_says_how_many_there_are(boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letters, "SHOWN", 1)
    monkeypatch.setattr(letters, "READ", 3)
    page = boss.get(URL).content.decode()
    assert "The oldest 1 of 4" in page
    assert "Reasons of the first 3 of 4" in page
    assert "Order m2" not in page


@pytest.mark.parametrize("form", [{"action": "replay"}, {"action": "delete"}, {"action": "delete", "confirmed": "y"}])
def test_buffer_that_is_down_is_named(boss: Client, settings: Settings, form: dict[str, str]) -> None:
    options = {"endpoint_url": "http://127.0.0.1:9", "region": "us-east-1", "table": "dashboard"}
    down = {"BACKEND": "segment_fallback.buffers.dynamodb.DynamoDBBuffer", "OPTIONS": options}
    settings.SEGMENT_FALLBACK = {
        **settings.SEGMENT_FALLBACK,
        "BUFFERS": {**settings.SEGMENT_FALLBACK.get("BUFFERS", {}), "default": down},
    }
    [text] = said(post(boss, id="m1", **form))
    assert "failed" in text or "could not be read" in text
