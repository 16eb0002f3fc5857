"""The archive on S3, by django-storages, on moto's S3."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.config import Config
from pytest_django import Settings

from segment_fallback.buffers.base import now_ms
from segment_fallback.delivery import archiving
from segment_fallback.delivery.archive import Archive, open_archive
from segment_fallback.delivery.archiving import lanes
from segment_fallback.delivery.flush import flush
from segment_fallback.testing import LocalSegment
from tests.delivery.archives import put, storages_in
from tests.servers import free_port

pytestmark = pytest.mark.django_db


def use(settings: Settings, url: str, bucket: str) -> None:
    """Let ARCHIVE name a storage in this bucket."""
    options = {
        "bucket_name": bucket,
        "location": "archive",
        "endpoint_url": url,
        "region_name": "us-east-1",
        "access_key": "tests",
        "secret_key": "tests",
        "client_config": Config(connect_timeout=1, read_timeout=5, retries={"total_max_attempts": 1}),
    }
    backend = {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options}
    settings.STORAGES = {**settings.STORAGES, "cloud": backend}
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "ARCHIVE": "cloud"}


@pytest.fixture
def client(moto_url: str) -> Any:
    return boto3.Session("tests", "tests", region_name="us-east-1").client("s3", endpoint_url=moto_url)


@pytest.fixture
def bucket(settings: Settings, moto_url: str, client: Any, local_segment: LocalSegment, tmp_path: Path) -> str:
    """The bucket of the site's archive. The spool is a folder."""
    settings.STORAGES = {**settings.STORAGES, **storages_in(tmp_path)}
    name = f"tests-{uuid4().hex}"
    client.create_bucket(Bucket=name)
    use(settings, moto_url, name)
    return name


def opened() -> Archive:
    found = open_archive()
    assert found
    return found


def ids() -> list[str]:
    return sorted(line.message["messageId"] for name in opened().files() for line in opened().read(name))


def test_delivered_messages_are_objects_of_their_hour(bucket: str, client: Any) -> None:
    put(*map(str, range(60)), properties={"text": "x" * 30_000})
    report = flush()
    assert (report.delivered, report.unarchived) == (60, 0)
    assert ids() == sorted(map(str, range(60)))
    keys = [entry["Key"] for entry in client.list_objects_v2(Bucket=bucket)["Contents"]]
    assert len(keys) == report.batches
    assert all(key.startswith("archive/dt=20") and "/hour=" in key for key in keys)


def test_bucket_that_is_unreachable_gets_all_when_it_is_back(
    bucket: str, settings: Settings, moto_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(archiving, "PAUSES", ())
    use(settings, f"http://127.0.0.1:{free_port()}", bucket)
    put("1", "2")
    report = flush()
    assert (report.delivered, report.unarchived) == (2, 0)
    assert "the archive failed" in caplog.text
    use(settings, moto_url, bucket)
    lanes.forget()  # a minute later
    flush()
    assert (ids(), opened().aside()) == (["1", "2"], [])


@pytest.mark.usefixtures("bucket")
def test_lines_are_replaced_and_days_deleted() -> None:
    put("1", "2")
    flush()
    [name] = opened().files()
    opened().replace(name, opened().lines(name)[1:])
    assert ids() == ["2"]
    [other] = opened().files()
    assert (other == name, other.rpartition("/")[0]) == (False, name.rpartition("/")[0])
    assert opened().prune(1) == 0
    created = opened().read(other)[0].created
    assert opened().prune((created - now_ms()) / 86_400_000 - 1.1) == 1
    assert list(opened().files()) == []
