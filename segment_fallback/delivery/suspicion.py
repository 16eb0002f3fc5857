"""A firewall or proxy on the way to Segment may dislike one message, and answer 403 or 500 to whatever batch has it.

An outage looks the same. So after some flushes in vain, and after each as many more, the batch that tries is searched
as one that Segment refuses is: what passes is delivered; what does not waits on, and is in nobody's way. Nothing is
given up for it.
"""

from __future__ import annotations

from segment_fallback.delivery.in_flight import Flight
from segment_fallback.delivery.transport import Answer

FAILURES = 5
"""Flushes in vain, one after the other."""

ALONE = 3
"""Messages that fail each alone, while none has passed, after which it is an outage."""
ALONE_AT_MOST = 20
"""The same where some have passed: the next search has its turn then."""

SUSPICIOUS = frozenset({403, 406})
"""What a firewall answers, besides 5xx."""


class Suspicion:
    """Whether a failure may be one message's, in one flush of a part that has failed so often before."""

    def __init__(self, failures: int) -> None:
        self._is_due = failures > 0 and failures % FAILURES == 0
        self._searches = False
        self._alone = 0
        self.passed = False
        """Whether Segment has taken anything since."""

    def falls_on(self, flight: Flight, answer: Answer) -> bool:
        """Whether to go on after that answer, with the halves of the batch or without the one message. If not, the
        source is to wait."""
        if answer.status is None or (answer.status < 500 and answer.status not in SUSPICIOUS):
            return False
        if not flight.halvings:
            # Only the batch that tries whether Segment is well again.
            self._searches, self._is_due = self._is_due, False
        elif len(flight.batch) == 1:
            self._alone += 1
        return self._searches and self._alone < (ALONE_AT_MOST if self.passed else ALONE)
