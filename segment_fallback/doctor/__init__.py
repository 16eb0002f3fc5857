"""The doctor: examines a running set-up, and pages as visitors and edges get them. ``manage.py segment_doctor``.

A site's own trackers are made known by ``register_tracker``, so that the doctor tells of them.
"""

from segment_fallback.doctor.finding import Finding, Level
from segment_fallback.doctor.trackers import register_tracker

__all__ = ["Finding", "Level", "register_tracker"]
