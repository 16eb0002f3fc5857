"""What differs behind a site: its users, its clock, its databases, its disk, its warnings."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from uuid import UUID

import pytest

from segment_fallback.testing import LocalSegment
from tests.compat.project import URLS, Project, Visitor

Make = Callable[..., Project]


# users

PEOPLE = """
INSTALLED_APPS += ["people"]
AUTH_USER_MODEL = "people.Person"
SEGMENT_FALLBACK |= {"IDENTIFY": True, "AUTH_EVENTS": True}
"""
PERSON = """
import uuid
from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.db import models

class Person(AbstractBaseUser, PermissionsMixin):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    email = models.EmailField(unique=True)
    USERNAME_FIELD = "email"
    objects = BaseUserManager()
"""


def test_custom_user_model(project: Make, segment: LocalSegment) -> None:
    site = project(PEOPLE)
    (site.directory / "people").mkdir()
    for name in ("__init__.py", "models.py"):
        site.append(f"people/{name}", PERSON if name == "models.py" else "")
    (site.directory / "db.sqlite3").unlink()
    site.manage("makemigrations", "people", "--verbosity", "0")
    site.manage("migrate", "--verbosity", "0")
    made = "from people.models import Person; print(Person.objects.create(email='ada@shop.example').pk)"
    user_id = site.shell(made).strip()
    with site.served() as server:
        visitor = Visitor(server)
        visitor.see("/")
        assert visitor.who_am_i() is None
        visitor.get("/log-in/")
        assert visitor.who_am_i() == user_id == str(UUID(user_id))
        assert visitor.pixel() == "accepted"
    site.manage("segment_flush")
    assert {(m.type, m.message["userId"]) for m in segment.messages} == {("identify", user_id), ("page", user_id)}


BARE = """
INSTALLED_APPS = ["segment_fallback"]
MIDDLEWARE = ["segment_fallback.middleware.SegmentMiddleware"]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates"}]
"""


@pytest.mark.parametrize("sessions", [False, True], ids=["nothing else", "sessions"])
def test_site_without_users(project: Make, segment: LocalSegment, sessions: bool) -> None:
    """Neither auth nor content types; a session cookie may be there all the same."""
    more = ""
    if sessions:
        more = "INSTALLED_APPS.append('django.contrib.sessions')\nSEGMENT_FALLBACK |= {'IDENTIFY': True}\n"
    site = project(BARE + more)
    (site.directory / "shop/urls.py").write_text("from django.urls import path\n" + URLS.replace("auth\n", "admin\n"))
    (site.directory / "db.sqlite3").unlink()
    site.manage("migrate", "--verbosity", "0")
    assert "no issues" in site.manage("check")
    with site.served() as server:
        visitor = Visitor(server)
        visitor.session.cookies["sessionid"] = "0" * 32
        visitor.see("/things/")
        assert visitor.pixel() == "accepted"
        if sessions:
            assert visitor.who_am_i() is None
    site.manage("segment_flush")
    [received] = segment.messages
    assert received.message.get("userId") is None


# clock

CLOCK = """
USE_TZ = False
TIME_ZONE = "America/New_York"
SEGMENT_FALLBACK |= {"RAISE_ERRORS": True}
"""
HANDLER = """
from segment_fallback import on, track

@on("order.completed")
def tell(event):
    track("ada", "Handled", {"aware": event.occurred_at.tzinfo is not None})
"""


def test_use_tz_off(project: Make, segment: LocalSegment) -> None:
    """Ours are moments of UTC; a naive one of the site's is one of its TIME_ZONE."""
    site = project(CLOCK + 'INSTALLED_APPS.append("shop")\n')
    site.append("shop/segment_events.py", HANDLER)
    with site.served() as server:
        visitor = Visitor(server)
        visitor.see("/things/")
        assert visitor.pixel() == "accepted"
    site.shell(
        """
        from datetime import datetime
        from segment_fallback import emit, track
        emit("order.completed", {"total": 5, "when": datetime(2026, 1, 2, 12)})
        track("ada", "Bought", {"when": datetime(2026, 1, 2, 12)}, timestamp=datetime.now())
        """
    )
    site.manage("segment_events", "--run")
    site.manage("segment_flush")
    messages = {
        received.message.get("event") or received.message.get("name"): received for received in segment.messages
    }
    assert set(messages) == {"Things", "Bought", "Handled"}
    for received in messages.values():
        moment = datetime.fromisoformat(received.message["timestamp"].replace("Z", "+00:00"))
        assert abs(datetime.now(timezone.utc) - moment) < timedelta(minutes=5)
    assert messages["Bought"].message["properties"]["when"] == "2026-01-02T12:00:00-05:00"


# databases

DATABASES = """
DATABASES["segment"] = {**DATABASES["default"], "NAME": BASE_DIR / "segment.sqlite3"}
"""
ROUTER = """
class Router:
    def db_for_read(self, model, **hints):
        return "segment" if model._meta.app_label == "segment_fallback" else None

    db_for_write = db_for_read

    def allow_migrate(self, db, app_label, **hints):
        return (db == "segment") == (app_label == "segment_fallback")
"""


def tables(site: Project, alias: str) -> set[str]:
    found = site.shell(f"from django.db import connections; print(connections[{alias!r}].introspection.table_names())")
    names: set[str] = {name.strip(" '[]\n") for name in found.split(",")}
    return {name for name in names if name.startswith("segment_fallback")}


def test_router_that_sends_our_tables_to_a_database_of_their_own(project: Make, segment: LocalSegment) -> None:
    site = project(DATABASES + 'DATABASE_ROUTERS = ["shop.router.Router"]\nINSTALLED_APPS.append("shop")\n')
    site.append("shop/router.py", ROUTER)
    site.append("shop/segment_events.py", HANDLER)
    (site.directory / "db.sqlite3").unlink()
    site.manage("migrate", "--verbosity", "0")
    site.manage("migrate", "--verbosity", "0", "--database", "segment")
    assert (tables(site, "default"), "segment_fallback_waitingmessage" in tables(site, "segment")) == (set(), True)
    with site.served() as server:
        visitor = Visitor(server)
        visitor.see("/things/")
        assert visitor.pixel() == "accepted"
    site.shell("from segment_fallback import emit; emit('order.completed', {})")
    assert "1 handled" in site.manage("segment_events", "--run")
    assert "2 delivered" in site.manage("segment_flush")
    assert "Handled" in site.manage("segment_counts")
    assert {received.type for received in segment.messages} == {"page", "track"}


def test_buffer_that_names_its_database(project: Make, segment: LocalSegment) -> None:
    """Without a router: the buffer's rows are there, and migrate is told of it."""
    buffer = {"BACKEND": "segment_fallback.buffers.database.DatabaseBuffer", "OPTIONS": {"using": "segment"}}
    site = project(DATABASES + f"SEGMENT_FALLBACK['BUFFERS'] = {{'default': {buffer}}}\n")
    site.manage("migrate", "segment_fallback", "--verbosity", "0", "--database", "segment")
    with site.served() as server:
        visitor = Visitor(server)
        visitor.see("/things/")
        assert visitor.pixel() == "accepted"
    asked = "from segment_fallback.models import WaitingMessage as W\nprint([W.objects.using(a).count() for a in A])"
    assert site.shell(asked.replace("A]", "('default', 'segment')]")) == "[0, 1]\n"
    assert "1 delivered" in site.manage("segment_flush")


def test_site_without_a_database_of_its_own(project: Make, dynamodb_local_url: str, segment: LocalSegment) -> None:
    """``DATABASES = {}``: what Django calls a dummy."""
    options = {"endpoint_url": dynamodb_local_url, "region": "us-east-1", "table": f"compat-{os.getpid()}"}
    buffer = {"BACKEND": "segment_fallback.buffers.dynamodb.DynamoDBBuffer", "OPTIONS": options}
    site = project(BARE + f"DATABASES = {{}}\nSEGMENT_FALLBACK['BUFFERS'] = {{'default': {buffer}}}\n")
    (site.directory / "shop/urls.py").write_text("from django.urls import path\n" + URLS.replace("auth\n", "admin\n"))
    site.environment |= {"AWS_ACCESS_KEY_ID": "compat", "AWS_SECRET_ACCESS_KEY": "compat"}
    site.manage("segment_table", "--create")
    with site.served() as server:
        visitor = Visitor(server)
        visitor.see("/things/")
        assert visitor.pixel() == "accepted"
    assert "1 delivered" in site.manage("segment_flush")


# disk

WITHOUT_OVERRIDE = ["setpriv", "--bounding-set=-dac_override"]
"""Root may write where nobody may, but for this."""

ELSEWHERE = """
DATABASES["default"]["NAME"] = os.environ["DATABASE"]
"""


@pytest.fixture
def read_only(project: Make, tmp_path: Path) -> Iterator[Project]:
    """A project that nobody may write to; its database is elsewhere."""
    site = project(ELSEWHERE)
    (tmp_path / "data").mkdir()
    shutil.move(site.directory / "db.sqlite3", tmp_path / "data/db.sqlite3")
    site.environment["DATABASE"] = str(tmp_path / "data/db.sqlite3")
    site.prefix = WITHOUT_OVERRIDE if os.geteuid() == 0 else ()
    folders = [site.directory, site.directory / "shop"]
    for folder in folders:
        folder.chmod(0o555)
    yield site
    for folder in folders:
        folder.chmod(0o755)


def test_read_only_project_works_as_any(read_only: Project, segment: LocalSegment) -> None:
    before = sorted(read_only.directory.rglob("*"))
    assert "no issues" in read_only.manage("check")
    with read_only.served() as server:
        visitor = Visitor(server)
        visitor.see("/things/")
        assert visitor.pixel() == "accepted"
    assert "1 delivered" in read_only.manage("segment_flush")
    assert sorted(read_only.directory.rglob("*")) == before


def test_spool_that_cannot_be_written_refuses_and_the_doctor_says_what_to_do(read_only: Project) -> None:
    database = Path(read_only.environment["DATABASE"])
    with read_only.served() as server:
        visitor = Visitor(server)
        visitor.see("/things/")
        database.rename(database.with_suffix(".away"))
        database.mkdir()  # a database that cannot be opened
        assert visitor.pixel() == "unavailable"
    database.rmdir()
    database.with_suffix(".away").rename(database)
    told = read_only.run("manage.py", "segment_doctor", fails=True)
    assert "The spool takes no file: PermissionError." in told
    assert "name a storage in SPOOL" in " ".join(told.split())


# warnings

EVERYTHING = """
import importlib, pkgutil, sys
import django; django.setup()
import segment_fallback
from django.core.management import call_command
from django.test import Client

names = [m.name for m in pkgutil.walk_packages(segment_fallback.__path__, "segment_fallback.")]
for name in names:
    if name not in ("segment_fallback.testing.__main__", MISSING):
        importlib.import_module(name)
call_command("check")
client = Client(SERVER_NAME="localhost", headers={"sec-fetch-site": "same-origin", "referer": "http://localhost/things/"})
page = client.get("/things/").text
image = page.partition('<img src="')[2].partition('"')[0]
print(client.get(image)["X-Segment-Fallback"])
segment_fallback.track("ada", "Bought")
call_command("segment_events", run=True)
call_command("segment_flush")
"""


def test_no_warning_is_an_error(project: Make, segment: LocalSegment) -> None:
    """``python -W error``: every module imported, a check, a page view, a call, events, a flush."""
    import django

    missing = "segment_fallback.django_tasks" if django.VERSION < (6, 0) else ""
    site = project()
    printed = site.run("-W", "error", "-c", EVERYTHING.replace("MISSING", repr(missing)))
    assert "accepted" in printed
    assert "2 delivered" in printed
    assert {received.type for received in segment.messages} == {"page", "track"}
