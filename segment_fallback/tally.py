"""Counts how hits ended, in the buffer."""

from __future__ import annotations

import time
from collections import Counter

from segment_fallback.buffers import buffers
from segment_fallback.counting import Counting, of_the_process
from segment_fallback.message import Way
from segment_fallback.outcome import Outcome
from segment_fallback.signals import refused, tell

Outcomes = Counter[tuple[int, str, str]]
"""By hour (in seconds since 1970), way and outcome."""


class Tally(Counting[Outcomes]):
    """How hits ended, as far as this process has not written it yet."""

    event = "untallied"
    trouble = "outcomes of %d hits could not be counted yet"

    def add(self, way: Way, outcome: Outcome, number: int = 1) -> None:
        """Count hits; of a batch each event is one. Never raises."""
        key = (int(time.time()) // 3600 * 3600, way.value, outcome.value)

        def count(pending: Outcomes) -> None:
            pending[key] += number

        self.change(count)
        if outcome.refused:
            tell(refused, Outcome, way=way, outcome=outcome, number=number)

    def none(self) -> Outcomes:
        return Counter()

    def store(self, counts: Outcomes) -> None:
        buffers["default"].add_outcome_counts(counts)

    def merge(self, older: Outcomes, newer: Outcomes) -> Outcomes:
        return older + newer

    def number(self, counts: Outcomes) -> int:
        return counts.total()


tally = of_the_process(Tally())
