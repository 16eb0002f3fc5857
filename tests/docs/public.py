"""What a site may import: docs/reference/python-api.md has all of it, and the guides use nothing else."""

from __future__ import annotations

import segment_fallback
from segment_fallback import buffers, doctor, events, profiles, testing

PUBLIC: dict[str, list[str]] = {
    "segment_fallback": [name for name in segment_fallback.__all__ if name != "__version__"],
    "segment_fallback.middleware": ["SegmentMiddleware"],
    "segment_fallback.intake.visitor": ["Visitor"],
    "segment_fallback.intake.identity": ["proven_anonymous_id"],
    "segment_fallback.page.inject": ["without_snippet"],
    "segment_fallback.names": ["endpoint_names", "public_key"],
    "segment_fallback.events": events.__all__,
    "segment_fallback.plan": ["planned", "check"],
    "segment_fallback.tasks": ["flush", "handle_events", "schedule_flush", "beat_schedule", "propagate_identity"],
    "segment_fallback.profiles": profiles.__all__,
    "segment_fallback.profiles.lookup": ["profile_of", "aprofile_of"],
    "segment_fallback.profiles.variations": ["variation"],
    "segment_fallback.profiles.assign": ["set_variations"],
    "segment_fallback.profiles.database": ["DatabaseProfiles"],
    "segment_fallback.profiles.dynamodb": ["DynamoDBProfiles"],
    "segment_fallback.profiles.cache": ["CacheProfiles"],
    "segment_fallback.buffers": buffers.__all__,
    "segment_fallback.buffers.base": ["Claim", "Waiting", "DeadLetter", "LeaseState", "LeaseLost", "Limits"],
    "segment_fallback.buffers.database": ["DatabaseBuffer"],
    "segment_fallback.buffers.dynamodb": ["DynamoDBBuffer"],
    "segment_fallback.buffers.memory": ["MemoryBuffer"],
    "segment_fallback.delivery.flush": ["flush"],
    "segment_fallback.aws": ["flush_handler"],
    "segment_fallback.delivery.counts": ["event_counts", "Count"],
    "segment_fallback.delivery.forget": ["Person", "Forgetting", "forget", "places"],
    "segment_fallback.health": ["view", "problems"],
    "segment_fallback.health_check": ["SegmentFallback"],
    "segment_fallback.metrics": ["view", "register", "SegmentCollector"],
    "segment_fallback.signals": ["received", "refused", "delivered", "buried"],
    "segment_fallback.outcome": ["Outcome"],
    "segment_fallback.exceptions": [
        "SegmentFallbackError",
        "InvalidMessage",
        "BufferUnavailable",
        "SpoolFull",
        "ProfilesUnavailable",
        "ArchiveUnavailable",
        "PlanViolation",
        "MissingExtra",
    ],
    "segment_fallback.doctor": doctor.__all__,
    "segment_fallback.testing": testing.__all__,
}
"""By module. What a list does not name may change in any release."""

BY_HAND = {
    "segment_fallback.admin": ["DashboardAdmin"],
    "segment_fallback.models": ["Dashboard"],
    "segment_fallback.jinja2": ["SegmentExtension", "segment_globals"],
    "segment_fallback.django_tasks": ["flush", "handle_events"],
}
"""What only some sites can import: with Django's admin, Jinja2 or Django 6. The page names it by hand."""
