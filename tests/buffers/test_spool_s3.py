"""The spool on S3, by django-storages, on moto's S3: what sites on several machines use."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.config import Config
from django.core.files.storage import storages
from django.db import connection
from pytest_django import Settings

from segment_fallback.buffers import buffers
from segment_fallback.buffers.accept import Acceptance, accept, acceptance
from segment_fallback.buffers.spool import Spool, make_spool
from segment_fallback.delivery.flush import flush
from segment_fallback.exceptions import BufferUnavailable, SpoolFull
from segment_fallback.message import Message, Way
from segment_fallback.models import WaitingMessage
from segment_fallback.testing import LocalSegment
from tests.servers import free_port


def message(name: object, body: bytes = b'{"title":"Sch\xc3\xb6n"}', **more: Any) -> Message:
    return Message(str(name), body, **more)


def use(settings: Settings, url: str, bucket: str) -> None:
    """Let SPOOL name a storage in this bucket."""
    options = {
        "bucket_name": bucket,
        "location": "spool",
        "endpoint_url": url,
        "region_name": "us-east-1",
        "access_key": "tests",
        "secret_key": "tests",
        "client_config": Config(connect_timeout=1, read_timeout=5, retries={"total_max_attempts": 1}),
    }
    backend = {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options}
    settings.STORAGES = {**settings.STORAGES, "cloud": backend}
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "SPOOL": "cloud"}


@pytest.fixture
def cloud(settings: Settings, moto_url: str) -> Iterator[Spool]:
    """The site's spool, in a bucket of its own."""
    bucket = f"tests-{uuid4().hex}"
    session = boto3.Session("tests", "tests", region_name="us-east-1")
    session.client("s3", endpoint_url=moto_url).create_bucket(Bucket=bucket)
    use(settings, moto_url, bucket)
    yield make_spool()
    acceptance.forget()


def drained(spool: Spool) -> list[str]:
    return [each.message_id for messages in spool.drain() for each in messages]


def test_what_is_put_comes_out_again_once(cloud: Spool) -> None:
    messages = [message("1", way=Way.PIXEL, provisional=True), message("2", b"x\\n\\t", source="docs")]
    cloud.put(messages)
    cloud.put([message("3")])
    assert list(make_spool().drain()) == [messages, [message("3")]]
    assert (list(cloud.drain()), cloud.files(), cloud.size()) == ([], [], 0)


def test_cap_counts_what_other_machines_have_spooled(cloud: Spool, settings: Settings) -> None:
    cloud.put([message("1", b"x" * 150)])
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "SPOOL_MAX_BYTES": 300}
    with pytest.raises(SpoolFull, match="SPOOL_MAX_BYTES allows 300"):
        make_spool().put([message("2", b"x" * 150)])
    assert drained(cloud) == ["1"]
    make_spool().put([message("2", b"x" * 150)])


def test_puts_at_once_all_arrive(cloud: Spool) -> None:
    threads = [threading.Thread(target=cloud.put, args=[[message(number)]]) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cloud.files()) <= 20
    assert sorted(drained(cloud), key=int) == [str(number) for number in range(20)]


@pytest.mark.parametrize("bucket", ["missing", "down"])
def test_endpoint_that_is_down_or_has_no_bucket_is_unavailable(settings: Settings, moto_url: str, bucket: str) -> None:
    use(settings, moto_url if bucket == "missing" else f"http://127.0.0.1:{free_port()}", "tests-nowhere")
    with pytest.raises(
        BufferUnavailable, match=r"the spool failed: (NoSuchBucket|ClientError|EndpointConnectionError)"
    ):
        make_spool().put([message("1")])


@pytest.mark.django_db
def test_flush_says_that_the_spool_is_down_and_delivers_what_waits(
    settings: Settings, local_segment: LocalSegment
) -> None:
    accept([message("1", b'{"messageId":"1"}')])
    use(settings, f"http://127.0.0.1:{free_port()}", "tests-nowhere")
    report = flush()
    assert "the spool failed" in report.trouble
    assert (report.delivered, len(local_segment.messages)) == (1, 1)


@pytest.mark.django_db(transaction=True)
def test_buffer_that_is_down_spools_and_the_next_flush_delivers(cloud: Spool, local_segment: LocalSegment) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE segment_fallback_waitingmessage RENAME TO gone")
        try:
            for number in range(3):
                accept([message(number, b'{"messageId":"%d"}' % number)])
            assert len(cloud.files()) == 3
        finally:
            cursor.execute("ALTER TABLE gone RENAME TO segment_fallback_waitingmessage")
    report = flush()
    assert (report.unspooled, report.delivered, cloud.files()) == (3, 3, [])
    assert sorted(str(received.message_id) for received in local_segment.messages) == ["0", "1", "2"]


@pytest.mark.django_db
def test_two_that_drain_together_drain_once(cloud: Spool) -> None:
    """The first is stopped in the middle, between two files, while the second tries."""
    for number in range(4):
        cloud.put([message(number)])
    second: list[int] = []
    first = Acceptance()
    storage = storages["cloud"]
    delete = storage.delete

    def drain_meanwhile(name: str) -> None:
        second.append(Acceptance().drain(60))
        delete(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "delete", drain_meanwhile)
        assert first.drain(60) == 4
    assert second == [0, 0, 0, 0]
    assert WaitingMessage.objects.count() == 4
    assert cloud.files() == []


@pytest.mark.django_db
def test_files_that_two_read_wait_once(cloud: Spool) -> None:
    """As when a drainer outlives its lease: both put the same file's messages, which have the same ids."""
    for number in range(3):
        cloud.put([message(number)])
    first, second = make_spool(), make_spool()
    one, other = first.drain(), second.drain()
    buffers["default"].put(next(one))
    for messages in other:
        buffers["default"].put(messages)
    for messages in one:
        buffers["default"].put(messages)
    assert sorted(WaitingMessage.objects.values_list("message_id", flat=True)) == ["0", "1", "2"]
    assert cloud.files() == []
