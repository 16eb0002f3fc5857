"""The dashboard's page: who sees it, what it says, and what it says when something does not answer."""

from __future__ import annotations

import time
from html import unescape
from io import StringIO
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import translation
from pytest_django import DjangoDbBlocker, Settings

from segment_fallback.buffers import buffers
from segment_fallback.buffers.base import now_ms
from segment_fallback.buffers.event_key import EventKey
from segment_fallback.dashboard import advice
from segment_fallback.dashboard.traffic import LABELS
from segment_fallback.message import Way, encode
from segment_fallback.models import EventCount, Lease, WaitingMessage
from segment_fallback.outcome import Outcome
from segment_fallback.status import Ailment
from tests.dashboard import fill
from tests.databases import database

URL = "/admin/segment_fallback/dashboard/"
HOUR = 3_600


def text(client: Client, **query: str) -> str:
    response = client.get(URL, query)
    assert response.status_code == 200
    return " ".join(unescape(response.content.decode()).split())


def count(ago: int = 0, **ways: int) -> None:
    """So many page views by each way, accepted so many hours ago."""
    hour = int(time.time()) // HOUR * HOUR - ago * HOUR
    EventCount.objects.bulk_create(
        [EventCount(hour=hour, way=way, type="page", count=number) for way, number in ways.items()]
    )


def test_dashboard_is_on_the_index_of_each_admin(boss: Client) -> None:
    assert f'href="{URL}"' in boss.get("/admin/").content.decode()
    office = boss.get("/office/").content.decode()
    assert 'href="/office/segment_fallback/dashboard/"' in office
    page = boss.get("/office/segment_fallback/dashboard/").content.decode()
    assert 'data-url="/office/segment_fallback/dashboard/live/?range=24h"' in page
    assert '"/admin/' not in page


@pytest.mark.parametrize("path", ["", "live/", "dead-letters/"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_nobody_sees_anything_without_the_permission(site: None, path: str, method: str) -> None:
    stranger = getattr(Client(), method)(f"{URL}{path}")
    assert (stranger.status_code, stranger["Location"][:13]) == (302, "/admin/login/")
    colleague = Client()
    colleague.force_login(User.objects.create_user("colleague", is_staff=True))
    method = "post" if path == "dead-letters/" else "get"
    assert getattr(colleague, method)(f"{URL}{path}").status_code == 403
    assert URL not in colleague.get("/admin/").content.decode()


@pytest.mark.parametrize("path", ["add/", "1/change/", "1/delete/", "1/history/"])
def test_admin_has_no_other_pages_of_it(boss: Client, path: str) -> None:
    assert boss.get(f"{URL}{path}").status_code == 404


@pytest.mark.parametrize("path", ["", "live/"])
def test_page_takes_no_post(boss: Client, path: str) -> None:
    boss.get(URL)
    token = boss.cookies["csrftoken"].value if "csrftoken" in boss.cookies else ""
    response = Client(enforce_csrf_checks=False)
    response.force_login(User.objects.get(username="admin"))
    assert response.post(f"{URL}{path}", {"csrfmiddlewaretoken": token}).status_code == 405


def test_page_of_a_new_site_says_that_nothing_happened_yet(viewer: Client) -> None:
    page = text(viewer)
    for words in ("No problems.", "Nothing yet", "Nothing waits.", "No flush was ever seen.", "nothing to send"):
        assert words in page
    assert "None. Messages that Segment refuses would be kept here" in page


def test_page_shows_what_arrived_by_hour_and_way(viewer: Client) -> None:
    count(0, javascript=60, pixel=15)
    count(2, javascript=10, noscript=5)
    count(30, javascript=1_000)
    page = text(viewer)
    assert "<dt>Arrived at Segment</dt><dd>90</dd>" in page
    assert "<b>JavaScript</b> 70" in page
    assert "<b>No script</b> 5" in page
    assert "Server" not in page.split('id="sf-numbers"')[1].split("</details>")[0]
    assert "JavaScript 60, Pixel 15</title>" in page
    assert "<td>60</td><td>15</td><td>0</td><td>75</td>" in page
    assert "<dt>Arrived at Segment</dt><dd>1,090</dd>" in text(viewer, range="7d")


@pytest.mark.parametrize(("range_", "steps"), [("24h", 24), ("7d", 28), ("30d", 30), ("year", 53), ("ever", 24)])
def test_page_shows_so_many_steps(viewer: Client, range_: str, steps: int) -> None:
    page = text(viewer, range=range_)
    wide = page.split('id="sf-chart-wide"')[1].split("</svg>")[0]
    assert wide.count("<g>") == steps
    assert page.split("<tbody>")[1].split("</tbody>")[0].count("<tr>") == steps


def test_chart_is_named_and_described_for_who_does_not_see_it(viewer: Client) -> None:
    count(0, javascript=60, pixel=15)
    chart = text(viewer).split('id="sf-chart-wide"')[1].split("</svg>")[0]
    assert "What arrived within 24 hours, by time and way</title>" in chart
    assert ">60 by JavaScript, 15 by Pixel. Most, 75, " in chart


def test_share_of_the_visits_that_the_fallback_saved(viewer: Client) -> None:
    count(0, javascript=150, pixel=40, noscript=6, call=4, server=999)
    page = text(viewer)
    assert "<dt>Visits saved</dt><dd>25.0 %</dd>" in page
    assert "50 page views that came by the fallback" in page


def test_share_is_not_told_where_it_cannot_be_known(viewer: Client, settings: Settings) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "FIRST_PARTY": False}
    count(0, pixel=40)
    page = text(viewer)
    assert "<dt>Page views saved</dt><dd>40</dd>" in page
    assert "go straight to Segment and are not seen here, so their share cannot be told" in page
    assert "100.0" not in page


def test_page_says_what_forwarding_leaves_out(viewer: Client, settings: Settings) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "COLLECT": "forward"}
    assert "go straight on to Segment and are not counted here" in text(viewer)


def test_page_shows_what_is_wrong_first_and_what_to_do(viewer: Client) -> None:
    fill.leases(trouble=True)
    WaitingMessage.objects.create(message_id="old", body=b"{}", way="pixel", created=now_ms() - 3_700_000)
    page = text(viewer)
    assert page.index("Messages wait for too long:") < page.index("Arrived at Segment")
    assert '<p id="sf-status" class="sf-hidden" role="status">1 problem: Messages wait for too long</p>' in page
    assert "More parts let more flushers work at once." in page
    assert "the oldest for 61 min" in page
    assert "<b>3 " in page
    assert "HTTP 429 Too Many Requests" in page
    assert "The archive lacks 120 messages" in page


def test_refusals_say_what_they_mean_and_what_to_do(viewer: Client) -> None:
    hour = int(time.time()) // HOUR * HOUR
    buffers["default"].add_outcome_counts(
        {(hour, "pixel", "rate"): 1_234, (hour, "noscript", "rate"): 1, (hour, "pixel", "accepted"): 9,
         (hour, "pixel", "of-a-later-release"): 3, (hour - 40 * HOUR, "pixel", "gpc"): 1}
    )  # fmt: skip
    section = text(viewer).split('id="sf-refused"')[1].split("</section>")[0]
    assert "Of 1,247 hits" in section
    assert "1,235" in section
    assert "Pixel, No script" in section
    assert Outcome.RATE.explanation in section
    assert advice.OUTCOMES[Outcome.RATE] in section
    assert "gpc" not in section
    assert "<code>gpc</code>" in text(viewer, range="7d")


def test_advice_fits_the_way(viewer: Client) -> None:
    hour = int(time.time()) // HOUR * HOUR
    buffers["default"].add_outcome_counts(
        {(hour, "profile", "malformed"): 2, (hour, "server", "disabled"): 3, (hour, "pixel", "gpc"): 1}
    )
    section = text(viewer).split('id="sf-refused"')[1].split("</section>")[0]
    assert "Profile" in section
    assert "Switch batching off" in section
    assert "purge" not in section
    assert "In server code let source= name an alias of SOURCES" in section
    buffers["default"].add_outcome_counts({(hour, "pixel", "malformed"): 1, (hour, "noscript", "malformed"): 1})
    section = text(viewer).split('id="sf-refused"')[1].split("</section>")[0]
    assert section.count("Switch batching off") == section.count("pages in caches may have an older script") == 1


def test_there_is_advice_for_everything() -> None:
    assert set(advice.OUTCOMES) == {outcome for outcome in Outcome if outcome.refused}
    assert set(advice.AILMENTS) == set(Ailment)


def test_every_way_has_a_name() -> None:
    assert set(LABELS) == {way.value for way in Way}


def test_times_are_of_the_zone_in_force_with_and_without_use_tz(viewer: Client, settings: Settings) -> None:
    at = 1_760_000_000_000  # 2025-10-09 08:53:20 UTC
    Lease.objects.create(part=0, flushed=at)
    shown = '<time datetime="2025-10-09T08:53:20+00:00" title="Oct. 9, 2025, 10:53:20 (CEST)">'
    assert shown in text(viewer)
    settings.USE_TZ = False
    count(1, pixel=7)
    page = text(viewer)
    assert shown in page
    assert "Pixel 7</title>" in page


@pytest.mark.parametrize("range_", ["24h", "7d", "30d", "year"])
def test_another_language_writes_numbers_its_way_and_leaves_the_drawing_alone(
    viewer: Client, settings: Settings, range_: str
) -> None:
    settings.USE_THOUSAND_SEPARATOR = True
    count(0, javascript=12_345, pixel=1_001)
    with translation.override("de"):
        page = text(viewer, range=range_)
    assert "13.346" in page
    assert "7,5 %" in page
    for chart in page.split("<svg id=")[1:]:
        numbers = [part.split('"')[1] for part in chart.split("</svg>")[0].split(" y=")[1:] if part[0] == '"']
        assert numbers
        assert all(float(number) >= 0 for number in numbers)


def test_page_says_so_when_the_buffer_is_down(
    viewer: Client, settings: Settings, django_db_blocker: DjangoDbBlocker, tmp_path: Path
) -> None:
    elsewhere = {"BACKEND": "segment_fallback.buffers.database.DatabaseBuffer", "OPTIONS": {"using": "down"}}
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "BUFFERS": {"default": elsewhere}}
    with database("down", {"NAME": str(tmp_path / "no folder" / "db")}, django_db_blocker, migrate=False):
        page = text(viewer)
    assert "A buffer does not answer:</b> buffer 'default': the database 'down' failed: unable to open" in page
    assert "Bring the database or the table up." in page
    assert "Not counted: buffer 'default'" in page
    assert "not be read: the database 'down' failed" in page.split('id="sf-refused"')[1]


def test_memory_buffer_has_a_page_too(viewer: Client, settings: Settings) -> None:
    memory = {"BACKEND": "segment_fallback.buffers.memory.MemoryBuffer"}
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "BUFFERS": {"default": memory, "old": memory}}
    hour = int(time.time()) // HOUR * HOUR
    for alias in ("default", "old"):
        buffers[alias].set_event_counts(hour, {EventKey(hour, "pixel", "page"): 5})
        buffers[alias].bury([encode({"type": "page", "messageId": alias, "userId": "u"})], "HTTP 400")
    page = text(viewer)
    assert "<dt>Arrived at Segment</dt><dd>10</dd>" in page
    assert "Delivery: buffer “old”" in page
    assert page.count('<tr data-key="HTTP 400">') == 2


def test_dynamodb_buffer_has_a_page_too(
    viewer: Client, settings: Settings, moto_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tests")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tests")
    options = {"endpoint_url": moto_url, "region": "us-east-1", "table": "dashboard"}
    dynamodb = {"BACKEND": "segment_fallback.buffers.dynamodb.DynamoDBBuffer", "OPTIONS": options}
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "BUFFERS": {"default": dynamodb}}
    assert "A buffer does not answer" in text(viewer)
    call_command("segment_table", "--create", stdout=StringIO())
    buffer = buffers["default"]
    hour = int(time.time()) // HOUR * HOUR
    buffer.set_event_counts(hour, {EventKey(hour, "pixel", "page"): 5})
    buffer.bury([encode({"type": "page", "messageId": "m", "userId": "u"})], "HTTP 400")
    page = text(viewer)
    assert "<dt>Arrived at Segment</dt><dd>5</dd>" in page
    assert "HTTP 400" in page


def test_page_asks_few_queries_however_much_there_is(viewer: Client) -> None:
    """With 100,000 waiting messages and a year of 20 events an hour on three ways."""
    fill.wait(100_000)
    fill.bury()
    hour = int(time.time()) // HOUR * HOUR
    with connection.cursor() as cursor:  # a hundred times as fast as objects are
        cursor.execute(
            """
            WITH RECURSIVE hours(ago) AS (SELECT 0 UNION ALL SELECT ago + 1 FROM hours WHERE ago < 8759),
                events(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM events WHERE n < 20),
                ways(way) AS (VALUES ('javascript'), ('pixel'), ('noscript'))
            INSERT INTO segment_fallback_eventcount (hour, way, type, event, count)
            SELECT %s - ago * 3600, way, 'track', 'Event ' || n, 1 FROM hours, ways, events
            """,
            [hour],
        )
    for range_ in ("24h", "year"):
        with CaptureQueriesContext(connection) as queries:
            page = text(viewer, range=range_)
        assert len(queries) < 20
        assert "<dt>Waiting</dt><dd>100,000</dd>" in page
    assert "<dt>Arrived at Segment</dt><dd>525,600</dd>" in page


def test_long_ranges_are_summed_up_once_in_a_while(viewer: Client) -> None:
    count(1, pixel=7)
    assert "<dd>7</dd>" in text(viewer, range="year")
    count(2, pixel=4)
    page = text(viewer, range="year")
    assert "<dd>7</dd>" in page
    assert "Summed up" in page
    cache.clear()
    assert "<dd>11</dd>" in text(viewer, range="year")


def test_cache_that_is_down_takes_nothing_with_it(viewer: Client, settings: Settings, tmp_path: Path) -> None:
    place = tmp_path / "a file, and no folder"
    place.touch()
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": str(place)}
    }
    count(1, pixel=7)
    assert "<dd>7</dd>" in text(viewer, range="year")
