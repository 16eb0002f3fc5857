"""Which offers a visitor sees: found by segment_fallback itself, as the name of this module says what it holds."""

from __future__ import annotations

from segment_fallback.profiles.store import Profile
from segment_fallback.profiles.variations import variation


def by_audience(profile: Profile) -> str:
    if profile.traits.get("trade"):
        return "trade"
    return "collectors" if profile.traits.get("collectors") else "everybody"


variation("/offers/", by_audience, ["everybody", "collectors", "trade"])
