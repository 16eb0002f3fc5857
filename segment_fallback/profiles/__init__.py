"""What Segment knows of the site's visitors, kept close to the site.

``profiles.store`` is the store that the setting PROFILES names; ``profile_of(request)`` is in ``lookup.py``.
"""

from __future__ import annotations

from segment_fallback.profiles.handler import profiles
from segment_fallback.profiles.store import Ids, Profile, ProfileStore

__all__ = ["Ids", "Profile", "ProfileStore", "profiles"]
