from __future__ import annotations

import json
from collections.abc import Iterator
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from botocore.config import Config
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test import override_settings
from pytest_django import DjangoDbBlocker

from segment_fallback.buffers.base import now_ms
from segment_fallback.exceptions import ProfilesUnavailable
from segment_fallback.models import KeptProfile
from segment_fallback.profiles import Ids, ProfileStore, profiles
from segment_fallback.profiles.api import pulls
from segment_fallback.profiles.cache import CacheProfiles
from segment_fallback.profiles.database import DatabaseProfiles
from segment_fallback.profiles.dynamodb import DynamoDBProfiles
from segment_fallback.profiles.handler import make_store
from tests.databases import database
from tests.profiles.contract import LATER, StoreContract, someone, traits_of
from tests.profiles.profile_api import eventually, profile_api
from tests.servers import DatabaseServer, free_port

CREDENTIALS = {"aws_access_key_id": "tests", "aws_secret_access_key": "tests"}
PATIENT = Config(read_timeout=10)
"""DynamoDB Local takes its time at first."""
PATH = "segment_fallback.profiles.database.DatabaseProfiles"


@pytest.fixture(scope="module", params=["sqlite", "postgresql_server", "mariadb_server"])
def database_store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker
) -> Iterator[DatabaseProfiles]:
    if request.param == "sqlite":
        settings: dict[str, Any] = {"NAME": str(tmp_path_factory.mktemp("profiles") / "db.sqlite3")}
    else:
        server: DatabaseServer = request.getfixturevalue(request.param)
        settings = server.settings
    with database(f"profiles-{request.param}", settings, django_db_blocker) as alias:
        yield DatabaseProfiles(using=alias)


class TestInADatabase(StoreContract):
    @pytest.fixture
    def store(self, database_store: ProfileStore, django_db_blocker: DjangoDbBlocker) -> Iterator[ProfileStore]:
        with django_db_blocker.unblock():
            yield database_store


class TestInACache(StoreContract):
    @pytest.fixture
    def store(self) -> ProfileStore:
        return CacheProfiles()


@pytest.fixture(scope="module")
def dynamodb_store(dynamodb_local_url: str) -> ProfileStore:
    return made(dynamodb_local_url)


class TestInDynamoDBLocal(StoreContract):
    @pytest.fixture
    def store(self, dynamodb_store: ProfileStore) -> ProfileStore:
        return dynamodb_store


@pytest.fixture(scope="module")
def moto_store(moto_url: str) -> ProfileStore:
    return made(moto_url)


class TestInMoto(StoreContract):
    at_once = False  # moto looks at a condition and writes in two steps

    @pytest.fixture
    def store(self, moto_store: ProfileStore) -> ProfileStore:
        return moto_store


def at(url: str, **options: Any) -> DynamoDBProfiles:
    return DynamoDBProfiles(
        **{"endpoint_url": url, "region": "eu-central-1", "client": {**CREDENTIALS, "config": PATIENT}, **options}
    )


def made(url: str) -> DynamoDBProfiles:
    store = at(url, table=f"profiles-{uuid4().hex}")
    store.create_table()
    return store


def test_thread_of_a_pull_fills_the_database(
    database_store: DatabaseProfiles, django_db_blocker: DjangoDbBlocker
) -> None:
    pulls.forget()
    user = uuid4().hex
    with profile_api() as segment, django_db_blocker.unblock():
        segment.says({"vip": True})
        own = {"SPACE": "s", "TOKEN": "t", "HOST": segment.url, "TIMEOUT": 5}
        store = {"BACKEND": PATH, "OPTIONS": {"using": database_store.using}}
        with override_settings(SEGMENT_FALLBACK={"WRITE_KEY": "x", "PROFILES": store, "PROFILE_API": own}):
            found = pulls.pull(user, None)
            assert found is not None
            assert found.values == {"vip": True}
            eventually(lambda: not pulls._under_way)
        assert traits_of(database_store, Ids(user)) == {"vip": True}


@pytest.mark.django_db
def test_expired_rows_are_swept() -> None:
    store = DatabaseProfiles()
    for number, expires in enumerate([1, now_ms(), LATER]):
        KeptProfile.objects.create(key=str(number), text="{}", version=1, expires=expires)
    assert store.sweep() == 2
    assert [row.key for row in KeptProfile.objects.all()] == ["2"]


@pytest.mark.django_db
def test_new_profiles_sweep_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segment_fallback.profiles.database.SWEPT_EACH", 1)
    KeptProfile.objects.create(key="old", text="{}", version=1, expires=1)
    DatabaseProfiles().update(someone(), {"a": 1}, now_ms())
    assert not KeptProfile.objects.filter(key="old").exists()


@pytest.mark.django_db
def test_rows_name_nobody() -> None:
    DatabaseProfiles().update(Ids("ada@example.com"), {"a": 1}, now_ms())
    assert "ada" not in str(KeptProfile.objects.values_list().get())


@pytest.mark.django_db
def test_lookup_is_one_query(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(3):  # one, and the savepoint that a test needs
        DatabaseProfiles().get(Ids("a", "b"))


@pytest.mark.django_db
def test_failed_lookup_spoils_no_transaction() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE segment_fallback_keptprofile RENAME TO gone")
    with transaction.atomic():
        with pytest.raises(ProfilesUnavailable, match="the database 'default' failed: no such table"):
            DatabaseProfiles().get(Ids("a"))
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE gone RENAME TO segment_fallback_keptprofile")


def test_dynamodb_that_is_down_is_unavailable() -> None:
    store = at(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ProfilesUnavailable, match="segment-profiles"):
        store.get(Ids("a"))


def test_dynamodb_table_that_is_missing_is_unavailable(dynamodb_local_url: str) -> None:
    with pytest.raises(ProfilesUnavailable, match="--create"):
        at(dynamodb_local_url, table="missing").get(Ids("a"))


def test_dynamodb_forgets_by_its_own_clock(dynamodb_local_url: str) -> None:
    store = made(dynamodb_local_url)
    found = store.dynamodb.client.describe_time_to_live(TableName=store.table)["TimeToLiveDescription"]
    assert found == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires"}
    assert store.create_table() == [f"{store.table}: exists", f"{store.table}: profiles expire already"]


def test_command_makes_the_table_and_says_what_must_be_allowed(dynamodb_local_url: str) -> None:
    options: dict[str, Any] = {
        "table": f"profiles-{uuid4().hex}",
        "endpoint_url": dynamodb_local_url,
        "region": "eu-central-1",
    }
    options["client"] = {**CREDENTIALS, "config": PATIENT}
    config = {"BACKEND": "segment_fallback.profiles.dynamodb.DynamoDBProfiles", "OPTIONS": options}
    with override_settings(SEGMENT_FALLBACK={"WRITE_KEY": "x", "PROFILES": config}):
        assert table_command() == f"{options['table']}: missing; run with --create\n"
        assert "created, on demand" in table_command("--create")
        assert table_command() == f"{options['table']}: active\n"
        (statement,) = json.loads(table_command("--policy"))["Statement"]
    assert statement["Action"] == ["dynamodb:BatchGetItem", "dynamodb:PutItem"]
    assert statement["Resource"].endswith(f":table/{options['table']}")


@pytest.mark.parametrize("config", [{}, {"BACKEND": PATH}, {"BACKEND": "missing.Store"}])
def test_command_wants_a_table_of_dynamodb(config: dict[str, Any]) -> None:
    with override_settings(SEGMENT_FALLBACK={"WRITE_KEY": "x", "PROFILES": config}), pytest.raises(CommandError):
        table_command()


def table_command(*arguments: str) -> str:
    output = StringIO()
    call_command("segment_table", "--profiles", *arguments, stdout=output)
    return output.getvalue()


@pytest.mark.django_db
def test_cache_that_is_down_is_unavailable(settings: Any) -> None:
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "missing"}}
    with pytest.raises(ProfilesUnavailable, match="the cache 'default' failed: OperationalError"):
        CacheProfiles().get(Ids("a"))


def test_writer_of_a_cache_that_died_keeps_others_out_for_seconds_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segment_fallback.profiles.cache.LOCKED", 0.01)
    store, ids = CacheProfiles(), someone()
    caches["default"].add(f"segment_fallback:profile:{ids.keys[0]}:lock", 1, 0.01)
    store.update(ids, {"a": 1}, now_ms())
    assert traits_of(store, ids) == {"a": 1}


def test_store_that_cannot_settle_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    store = CacheProfiles()
    monkeypatch.setattr("segment_fallback.profiles.store.TRIES", 2)
    monkeypatch.setattr(CacheProfiles, "write", lambda *args, **kwargs: False)
    with pytest.raises(ProfilesUnavailable, match="too many"):
        store.update(someone(), {"a": 1}, now_ms())


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({}, "is not set"),
        ({"BACKEND": "missing.Store"}, "cannot import 'missing.Store'"),
        ({"BACKEND": "segment_fallback.profiles.Profile"}, "is not a ProfileStore"),
        ({"BACKEND": PATH, "OPTIONS": {"url": 1}}, "unexpected keyword argument 'url'"),
    ],
)
def test_store_that_cannot_be_made_is_explained(config: dict[str, Any], text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=text):
        make_store(config)


def test_store_is_made_once_for_the_same_settings() -> None:
    with override_settings(SEGMENT_FALLBACK={"WRITE_KEY": "x", "PROFILES": {"BACKEND": PATH}}):
        first = profiles.store
        assert profiles
        assert profiles.store is first
        profiles.forget()
        assert profiles.store is not first
    assert not profiles
    with pytest.raises(ImproperlyConfigured):
        profiles.store  # noqa: B018 - it raises


def test_repr_of_a_profile_tells_nothing() -> None:
    store, ids = CacheProfiles(), Ids("ada")
    store.update(ids, {"secret": "x"}, now_ms())
    profile = store.get(ids)
    assert "secret" not in repr(profile)
    assert "ada" not in repr(profile)
