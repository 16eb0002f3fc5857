"""The tables of DatabaseBuffer. Rows are the app's own business: nobody edits them."""

from __future__ import annotations

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper


class ExactCharField(models.CharField):  # type: ignore[type-arg]
    """A text told apart character by character, also by MySQL and MariaDB, which by default ignore case."""

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        kind = super().db_type(connection)
        return f"{kind} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin" if connection.vendor == "mysql" else kind


class MessageIdField(models.CharField):  # type: ignore[type-arg]
    """A messageId: ASCII, told apart byte by byte, also by MySQL and MariaDB, which by default ignore case."""

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        kind = super().db_type(connection)
        return f"{kind} CHARACTER SET ascii COLLATE ascii_bin" if connection.vendor == "mysql" else kind


class WaitingMessage(models.Model):
    """A message that was accepted and not yet delivered. ``id`` is the order of arrival."""

    id = models.BigAutoField(primary_key=True)
    message_id: models.CharField[str, str] = MessageIdField(max_length=99, unique=True)
    part = models.PositiveSmallIntegerField(default=0)
    body = models.BinaryField()
    way = models.CharField(max_length=10)
    source = models.CharField(max_length=40, default="default")
    provisional = models.BooleanField(default=False)
    not_before = models.BigIntegerField(default=0, help_text="Milliseconds since 1970 (UTC).")
    created = models.BigIntegerField(help_text="Milliseconds since 1970 (UTC).")

    class Meta:
        indexes = [models.Index(fields=["part", "id"], name="segment_part_order")]

    def __str__(self) -> str:
        return self.message_id


class DeadLetter(models.Model):
    """A message that Segment will not take. Kept, with the reason, until somebody decides."""

    id = models.BigAutoField(primary_key=True)
    message_id: models.CharField[str, str] = MessageIdField(max_length=99, unique=True)
    body = models.BinaryField()
    way = models.CharField(max_length=10)
    source = models.CharField(max_length=40, default="default")
    reason = models.CharField(max_length=200)
    attempts = models.PositiveIntegerField(default=0)
    created = models.BigIntegerField(help_text="Milliseconds since 1970 (UTC).")
    buried = models.BigIntegerField(help_text="Milliseconds since 1970 (UTC).")

    def __str__(self) -> str:
        return self.message_id


class Lease(models.Model):
    """Who flushes a part, until when; and until when nobody tries. Times in milliseconds since 1970 (UTC)."""

    part = models.SmallIntegerField(primary_key=True)
    owner = models.CharField(max_length=32, blank=True, default="")
    expires = models.BigIntegerField(default=0)
    not_before = models.BigIntegerField(default=0)
    failures = models.PositiveIntegerField(default=0)
    doubts = models.TextField(blank=True, default="", help_text="JSON: messageId to milliseconds since 1970.")
    flushed = models.BigIntegerField(default=0)
    error = models.CharField(max_length=200, blank=True, default="")
    error_at = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"part {self.part}"


class OutcomeCount(models.Model):
    """How many hits ended in one outcome, by hour and way."""

    id = models.BigAutoField(primary_key=True)
    hour = models.BigIntegerField(help_text="Start of the hour, in seconds since 1970 (UTC).")
    way = models.CharField(max_length=10)
    outcome = models.CharField(max_length=20)
    count = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["hour", "way", "outcome"], name="segment_outcome_once")]

    def __str__(self) -> str:
        return f"{self.hour} {self.way} {self.outcome}: {self.count}"


class Dashboard(OutcomeCount):
    """No table of its own: the dashboard's entry in Django's admin, and its permissions."""

    class Meta:
        proxy = True
        verbose_name = verbose_name_plural = "dashboard"
        default_permissions = ("view",)
        permissions = [("manage_dead_letters", "Can replay and delete dead letters")]


class EventCount(models.Model):
    """How many messages were delivered, by the hour in which they were accepted, way, type and event."""

    id = models.BigAutoField(primary_key=True)
    hour = models.BigIntegerField(help_text="Start of the hour, in seconds since 1970 (UTC).")
    way = models.CharField(max_length=10)
    type = models.CharField(max_length=10)
    event: models.CharField[str, str] = ExactCharField(max_length=100, blank=True, default="")
    count = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["hour", "way", "type", "event"], name="segment_event_once")]

    def __str__(self) -> str:
        return f"{self.hour} {self.way} {self.type} {self.event}: {self.count}"


class PendingEvent(models.Model):
    """An event that was emitted, until its handlers are done with it. Times in milliseconds since 1970 (UTC).

    Whoever runs its handlers sets ``owner``, and ``next_try`` to the end of his lease.
    """

    WAITING, FAILED, DONE = "waiting", "failed", "done"

    id = models.BigAutoField(primary_key=True)
    event_id: models.CharField[str, str] = MessageIdField(max_length=32, unique=True)
    name = models.CharField(max_length=100)
    payload = models.TextField(help_text="JSON.")
    caller = models.TextField(help_text="JSON: anonymousId, userId, context.")
    occurred = models.BigIntegerField(help_text="Milliseconds since 1970 (UTC).")
    created = models.BigIntegerField(help_text="Milliseconds since 1970 (UTC).")
    state = models.CharField(max_length=10, default=WAITING)
    keep_id = models.BooleanField(default=False, help_text="The same id may come again, and is not to count again.")
    owner = models.CharField(max_length=32, blank=True, default="")
    next_try = models.BigIntegerField(help_text="Milliseconds since 1970 (UTC).")
    progress = models.TextField(default="{}", help_text="JSON: what became of each handler.")

    class Meta:
        indexes = [models.Index(fields=["state", "next_try"], name="segment_event_due")]

    def __str__(self) -> str:
        return f"{self.name} {self.event_id}"


class SeenEvent(models.Model):
    """How often messages of a track name were seen since there is a tracking plan, and what was wrong with them."""

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=100, unique=True)
    count = models.PositiveBigIntegerField(default=0)
    violations = models.PositiveBigIntegerField(default=0)
    last_violation = models.CharField(max_length=200, blank=True, default="")
    last_seen = models.BigIntegerField(default=0, help_text="Milliseconds since 1970 (UTC).")

    def __str__(self) -> str:
        return f"{self.name}: {self.count}"


class KeptProfile(models.Model):
    """What a DatabaseProfiles keeps of one id, under its hash."""

    key: models.CharField[str, str] = MessageIdField(max_length=66, primary_key=True)
    text = models.TextField(help_text="JSON, of ASCII characters.")
    version = models.PositiveBigIntegerField(help_text="How often it was written.")
    expires = models.BigIntegerField(db_index=True, help_text="Milliseconds since 1970 (UTC).")

    def __str__(self) -> str:
        return self.key
