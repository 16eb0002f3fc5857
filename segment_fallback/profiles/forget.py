"""``segment_forget`` deletes profiles, too."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured

from segment_fallback.delivery.forget import Forgetting, places
from segment_fallback.exceptions import MissingExtra, ProfilesUnavailable
from segment_fallback.profiles.handler import profiles
from segment_fallback.profiles.store import Ids


def forget_profiles(work: Forgetting) -> int:
    """The profile of each of the ids; what Segment told of it before is not taken again, should it come again."""
    if not profiles:
        return 0
    named = [Ids(user_id=value) for value in work.person.user_ids]
    named += [Ids(anonymous_id=value) for value in work.person.anonymous_ids]
    found = 0
    try:
        for ids in named:
            found += any(record.traits for record in profiles.store.records(ids).values())
            if not work.dry_run:
                profiles.store.delete(ids)
    except (ProfilesUnavailable, ImproperlyConfigured, MissingExtra) as error:
        work.left.append(f"profiles cannot be reached: {error}")
    return found


def register() -> None:
    places["profiles"] = forget_profiles
