"""Batches on their way to Segment: several at once, so that none waits for the answer to another."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass, replace
from functools import partial

from segment_fallback.buffers.base import Waiting
from segment_fallback.delivery.transport import Answer, Transport


@dataclass(frozen=True)
class Flight:
    """A batch and its way. ``halvings``: how often Segment has refused a batch of which this one is a half."""

    batch: Sequence[Waiting]
    transport: Transport
    halvings: int = 0

    @property
    def source(self) -> str:
        """The alias of its source."""
        return self.batch[0].source

    def halves(self) -> list[Flight]:
        """The batch in two, the older half first."""
        middle, halvings = len(self.batch) // 2, self.halvings + 1
        return [replace(self, batch=half, halvings=halvings) for half in (self.batch[:middle], self.batch[middle:])]


class InFlight:
    """What one flusher has sent and not yet heard of. Only the requests are made in the pool's threads."""

    def __init__(self, pool: futures.Executor) -> None:
        self._pool = pool
        self._flights: dict[futures.Future[Answer], Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def messages(self) -> int:
        """How many there are in all of them."""
        return sum(len(flight.batch) for flight in self._flights.values())

    def start(self, flight: Flight, retry_count: int) -> None:
        """Send it, in a thread; or, where none is to be had, as at the end of a process, before this returns."""
        send = partial(flight.transport.send, [message.body for message in flight.batch], retry_count=retry_count)
        try:
            # With the span of the flush, below which that of the sending belongs.
            future = self._pool.submit(contextvars.copy_context().run, send)
        except RuntimeError:
            future = futures.Future()
            future.set_result(send())
        self._flights[future] = flight

    def wait(self, seconds: float | None) -> bool:
        """Whether there is an answer, after so many seconds at most; None waits as long as it takes."""
        return bool(futures.wait(self._flights, seconds, futures.FIRST_COMPLETED).done)

    def landed(self) -> Iterator[tuple[Flight, futures.Future[Answer]]]:
        """Those whose answers have come, in the order in which they were sent; what is not taken stays."""
        for future in [each for each in self._flights if each.done()]:
            yield self._flights.pop(future), future
