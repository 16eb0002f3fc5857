"""A check for django-health-check 4: ``checks=["segment_fallback.health_check.SegmentFallback", …]`` of its view."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from django.db import connections

try:
    from health_check.base import HealthCheck
    from health_check.exceptions import ServiceUnavailable
except ImportError as error:
    from segment_fallback.exceptions import MissingExtra

    raise MissingExtra("segment_fallback.health_check", "health") from error

from segment_fallback.health import problems


@dataclasses.dataclass
class SegmentFallback(HealthCheck):  # type: ignore[misc]
    """Fails with the words of what is wrong. The options are those of ``segment_fallback.health.view``."""

    only: Collection[str] | None = dataclasses.field(default=None, repr=False)
    details: bool = dataclasses.field(default=False, repr=False)
    counting: bool = dataclasses.field(default=False, repr=False)

    def run(self) -> None:
        """Called in a thread of its own, whose connections nobody else would close."""
        try:
            found = list(problems(self.only, counting=self.counting))
        finally:
            connections.close_all()
        if found:
            raise ServiceUnavailable("; ".join(p.detail if self.details else p.ailment.value for p in found))
