"""The driver: a plan of kills and faults at random moments, and the count at the end."""

# ruff: noqa: S311 - nothing here is secret
from __future__ import annotations

import contextlib
import heapq
import itertools
import json
import random
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from segment_fallback.testing import LocalSegment
from tests.servers import free_port
from tests.torture import archive, upstream
from tests.torture.backends import BACKENDS, Backend
from tests.torture.books import ACCEPTED, OFFERED, Count, read_archive, read_ledgers, read_spool
from tests.torture.fleet import Fleet, Member

LATER = 600
"""Seconds by which the last flush's clock is ahead: by then leases have expired, and nobody backs off any more."""
FULL_DISK = 300
"""Bytes at which files cannot grow any more in a process whose disk is full."""
SLOWEST = 4
"""How many times longer than planned a run may take on a slow machine."""
UNFORESEEN = [("web", "a page view could not be taken"), ("worker", "raised unexpected")]
"""Words of the logs that tell of an error for which the app has no name."""


@dataclass(frozen=True)
class Order:
    """What is to be done: to which backend, for how long, with how many kills. ``celery``: with worker and beats."""

    backend: str
    seconds: float = 60.0
    kills: int = 60
    seed: int = 0
    celery: bool = False


@dataclass
class Result:
    """What was done, and what came of it."""

    order: Order
    before: Count
    """With everything killed, before the last flush."""
    after: Count
    """After one flush with everything healthy."""
    duplicates: int
    garbled: list[str]
    last_flush: str
    done: dict[str, Counter[str]] = field(default_factory=dict)
    deaths: list[str] = field(default_factory=list)
    """Processes that ended without having been killed, and errors that nobody foresaw."""

    @property
    def faults(self) -> list[str]:
        """What must not be; empty if all is well."""
        count = self.after
        found = {
            "lost": self.before.lost | count.lost,
            "missing in the archive": self.before.unarchived | count.unarchived,
            "archived and not delivered": (self.before.archived - self.before.delivered)
            | (count.archived - count.delivered),
            "unexplained": self.before.unexplained | count.unexplained,
            "still waiting after the last flush": count.waiting | count.spooled,
            "garbled": self.garbled,
        }
        idle = [] if self.before.delivered else ["nothing was delivered while it was tortured: this says little"]
        return [f"{len(ids)} {what}: {sorted(ids)[:5]}" for what, ids in found.items() if ids] + self.deaths + idle

    def __str__(self) -> str:
        order = self.order
        lines = [f"{order.backend}: {order.seconds:.0f} s, seed {order.seed}"]
        for what, counter in self.done.items():
            kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(counter.items()))
            lines.append(f"  {what} ({counter.total()}): {kinds}")
        lines += [
            f"  all killed:        {self.before}",
            f"  last flush:        {self.last_flush}",
            f"  after it:          {self.after}",
            f"  delivered again:   {self.duplicates:,}, each under an id that Segment knows",
            f"  verdict:           {'; '.join(self.faults) or 'every accepted message is accounted for'}",
        ]
        return "\n".join(lines)


class Deck:
    """Deals kinds in a random order: none twice before each came once."""

    def __init__(self, kinds: Iterable[str], random: random.Random) -> None:
        self._kinds = list(kinds)
        self._random = random
        self._left: list[str] = []

    def draw(self) -> str:
        self._left = self._left or self._random.sample(self._kinds, len(self._kinds))
        return self._left.pop()


class Torture:
    """One run. ``directory``: an empty one."""

    def __init__(self, order: Order, directory: Path) -> None:
        self._order = order
        self._directory = directory
        self._random = random.Random(order.seed)
        self._plan: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._now = 0.0
        self._done = {"asked of Segment": Counter[str](), "done to the buffer": Counter[str]()}
        self._done["done to the archive"] = Counter[str]()
        self._seen = 0
        """How many of Segment's requests had come when it was last asked to misbehave."""
        self._broken: dict[str, AbstractContextManager[object]] = {}
        """What is broken now; left to be mended."""

    def run(self) -> Result:
        with LocalSegment() as segment, BACKENDS[self._order.backend](self._directory) as backend:
            upstream.behave(segment)
            archive.make(self._directory)
            options = {
                "directory": str(self._directory),
                "segment": segment.url,
                "databases": backend.databases,
                "buffers": backend.buffers,
            }
            environment = {"TORTURE": json.dumps(options), "DJANGO_SETTINGS_MODULE": "tests.torture.site"}
            with Fleet(self._directory, environment, self._members(), self._random) as fleet:
                fleet.run("django", *backend.setup)
                self._plan_all(segment, backend, fleet)
                self._carry_out(fleet)
            upstream.behave(segment)
            before = self._count(segment, backend)
            last_flush = fleet.run("tests.torture.process", "flush_once", clock=LATER)
            return self._result(segment, backend, fleet, before, last_flush)

    def _members(self) -> list[Member]:
        port = str(free_port())
        members = [Member("load", [port]), Member("load", [port]), Member("web", [port])]
        members += [Member("flusher"), Member("flusher")]
        if self._order.celery:
            members += [Member("worker"), Member("beat"), Member("beat")]
        return members

    # The plan.

    def _plan_all(self, segment: LocalSegment, backend: Backend, fleet: Fleet) -> None:
        """A moment for everything, all from the seed. The first seconds are for the start."""
        seconds = self._order.seconds
        self._answers, self._faults = Deck(upstream.ANSWERS, self._random), Deck(backend.faults, self._random)
        self._spread(self._order.kills, fleet.kill_one)
        self._spread(max(len(upstream.ANSWERS), round(seconds / 2)), lambda: self._misbehave(segment))
        self._spread(round(seconds / 15), lambda: self._stop_segment(segment))
        self._spread(max(len(backend.faults), round(seconds / 5)), lambda: self._break(backend, fleet))
        self._spread(max(2, round(seconds / 10)), self._stop_archive)

    def _spread(self, times: int, act: Callable[[], None]) -> None:
        for _ in range(times):
            self._at(self._random.uniform(2, self._order.seconds), act)

    def _at(self, moment: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._plan, (moment, next(self._number), act))

    def _carry_out(self, fleet: Fleet) -> None:
        """Do all that is planned. Time stands still (up to a limit) while most of the fleet is only starting: on a
        slow machine nothing would be at work when it is hit."""
        start = last = time.monotonic()
        while self._plan:
            fleet.revive()
            time.sleep(0.02)
            now = time.monotonic()
            if fleet.is_at_work() or now - start > SLOWEST * self._order.seconds:
                self._now += now - last
            last = now
            while self._plan and self._plan[0][0] <= self._now:
                heapq.heappop(self._plan)[2]()
                if not fleet.is_at_work():
                    break

    # What is done. Each fault mends itself by a further entry in the plan.

    def _misbehave(self, segment: LocalSegment) -> None:
        """Let one or two requests go wrong; later, if nothing has gone well since the last time: or else all that
        could be seen is how everybody backs off."""
        requests = segment.requests
        if any(request.status == 200 for request in requests[self._seen :]):
            kind = self._answers.draw()
            segment.answer_with(upstream.ANSWERS[kind](segment), times=self._random.randint(1, 2))
            self._done["asked of Segment"][kind] += 1
            self._seen = len(requests)
        elif self._now < self._order.seconds:
            self._at(self._now + 0.2, lambda: self._misbehave(segment))

    def _stop_segment(self, segment: LocalSegment) -> None:
        if self._for_a_while("segment", _stopped(segment)):
            self._done["asked of Segment"]["down"] += 1

    def _stop_archive(self) -> None:
        if self._for_a_while("archive", archive.unwritable(self._directory)):
            self._done["done to the archive"]["unwritable"] += 1

    def _break(self, backend: Backend, fleet: Fleet) -> None:
        if "buffer" not in self._broken:
            kind = self._faults.draw()
            self._for_a_while("buffer", backend.faults[kind]())
            self._done["done to the buffer"][kind] += 1
            if self._random.random() < 0.5 and self._for_a_while("disk", full_disk(fleet.pids("web"))):
                self._done["done to the buffer"]["and the disk full"] += 1

    def _for_a_while(self, what: str, fault: AbstractContextManager[object]) -> bool:
        """Break it until some time later; whether it was not broken already."""
        if what in self._broken:
            return False
        fault.__enter__()
        self._broken[what] = fault
        self._at(self._now + self._random.uniform(0.3, 3), lambda: self._mend(what))
        return True

    def _mend(self, what: str) -> None:
        self._broken.pop(what).__exit__(None, None, None)

    # What came of it.

    def _count(self, segment: LocalSegment, backend: Backend) -> Count:
        waiting, dead = backend.look()
        books = self._directory / "books"
        delivered = {str(received.message_id) for received in segment.messages}
        return Count(
            read_ledgers(books, OFFERED),
            read_ledgers(books, ACCEPTED),
            delivered,
            set(waiting),
            read_spool(self._directory / "spool"),
            set(dead),
            read_archive(self._directory / archive.KEPT) | read_archive(self._directory / "spool" / "archive"),
        )

    def _result(self, segment: LocalSegment, backend: Backend, fleet: Fleet, before: Count, last_flush: str) -> Result:
        after = self._count(segment, backend)
        done = {"killed": fleet.kills, "started with a clock": fleet.clocks, **self._done}
        done["answers of Segment"] = upstream.statuses(segment)
        unforeseen = [f"{error!r} in the log of {role}" for role, error in UNFORESEEN if error in fleet.log(role)]
        return Result(
            self._order,
            before,
            after,
            len(segment.messages) - len(after.delivered),
            upstream.garbled(segment),
            last_flush,
            done,
            fleet.deaths + unforeseen,
        )


@contextlib.contextmanager
def _stopped(segment: LocalSegment) -> Iterator[None]:
    segment.stop()
    yield
    segment.start()


@contextlib.contextmanager
def full_disk(pids: Sequence[int]) -> Iterator[None]:
    """Let these processes write no file beyond its first bytes: the kernel refuses, as on a full disk. Linux only."""
    hard = resource.RLIM_INFINITY
    for limit in (FULL_DISK, hard):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, hard))
        if limit == FULL_DISK:
            yield
