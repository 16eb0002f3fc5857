from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core import serializers
from django.core.exceptions import FieldDoesNotExist
from django.db import transaction
from django.db.models import F, Value
from django.db.models.functions import Concat
from django.db.models.signals import post_save, pre_delete, pre_save

from segment_fallback.events import track_model
from segment_fallback.events.event import Event, event_of
from segment_fallback.models import PendingEvent

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def tracked() -> Iterator[None]:
    track_model(User, created="Signed Up", updated="User Changed", deleted="User Left", fields=["email", "first_name"])
    yield
    for signal in (pre_save, post_save, pre_delete):
        signal.disconnect(sender=User, dispatch_uid="segment_fallback.auth.User")


def events() -> list[Event]:
    return [event_of(row) for row in PendingEvent.objects.order_by("id")]


def changed(event: Event) -> Any:
    return event.payload["changed"]


@pytest.fixture
def user() -> User:
    user: User = User.objects.create(username="u", email="a@shop.example")
    PendingEvent.objects.all().delete()
    return user


def test_created_instance_is_told_with_the_listed_fields() -> None:
    user = User.objects.create(username="u", email="a@shop.example", last_name="Private")
    (event,) = events()
    assert (event.name, list(event.payload)) == ("Signed Up", ["instance"])
    assert event.payload["instance"].fields == {"email": "a@shop.example", "first_name": ""}
    assert event["instance"] == user


def test_update_is_told_with_what_changed(user: User) -> None:
    user.email = "b@shop.example"
    user.save()
    (event,) = events()
    assert event.name == "User Changed"
    assert changed(event) == {"email": ["a@shop.example", "b@shop.example"]}
    assert event.payload["instance"].fields["email"] == "b@shop.example"


def test_update_of_other_fields_is_not_told(user: User) -> None:
    user.last_name = "Private"
    user.save()
    user.email = "not saved"
    user.save(update_fields=["last_name"])
    assert events() == []


def test_expression_is_told_by_its_value(user: User) -> None:
    user.email = Concat(F("email"), Value("!"))
    user.save()
    assert changed(events()[0]) == {"email": ["a@shop.example", "a@shop.example!"]}


def test_deferred_field_is_compared_too(user: User) -> None:
    found = User.objects.only("pk").get()
    found.first_name = "Ada"
    found.save()
    assert changed(events()[0]) == {"first_name": ["", "Ada"]}


def test_save_under_a_known_key_is_an_update(user: User) -> None:
    User(pk=user.pk, username="u", email="c@shop.example").save()
    assert changed(events()[0]) == {"email": ["a@shop.example", "c@shop.example"]}


def test_deleted_instance_is_told_as_it_was(user: User) -> None:
    pk = user.pk
    user.delete()
    (event,) = events()
    assert event.name == "User Left"
    reference = event.payload["instance"]
    assert (reference.pk, reference.fields["email"]) == (pk, "a@shop.example")


def test_deleted_instance_that_was_not_loaded_is_told_too(user: User) -> None:
    User.objects.only("pk").get().delete()
    assert events()[0].payload["instance"].fields["email"] == "a@shop.example"


def test_rolled_back_change_never_happened(user: User) -> None:
    with transaction.atomic():
        user.email = "b@shop.example"
        user.save()
        user.delete()
        transaction.set_rollback(True)
    assert events() == []


def test_fixtures_and_other_models_are_not_told(user: User) -> None:
    found: Any
    (found,) = serializers.deserialize("json", serializers.serialize("json", [user]))
    found.object.email = "fixture"
    found.save()
    Group.objects.create(name="g")
    assert events() == []


def test_declaration_that_cannot_be_kept_is_refused() -> None:
    with pytest.raises(FieldDoesNotExist):
        track_model(Group, created="c", fields=["nme"])
    with pytest.raises(TypeError, match="needs fields"):
        track_model(Group, updated="u")
    with pytest.raises(TypeError, match=r"Group\.user is no column"):
        track_model(Group, updated="u", fields=["user"])


def test_only_what_was_asked_for_is_told() -> None:
    track_model(Group, deleted="Group Gone")
    try:
        Group.objects.create(name="g").delete()
        (event,) = events()
        assert event.name == "Group Gone"
        assert event.payload["instance"].fields == {}
    finally:
        pre_delete.disconnect(sender=Group, dispatch_uid="segment_fallback.auth.Group")
