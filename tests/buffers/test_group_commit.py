from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from segment_fallback.buffers.group_commit import MAX_JOINED, GroupCommit
from segment_fallback.exceptions import BufferUnavailable
from segment_fallback.message import Message

DEADLINE = 30.0


def message(name: object) -> Message:
    return Message(str(name), b"{}")


class Store:
    """A slow store: each write waits until it is let go."""

    def __init__(self) -> None:
        self.writes: list[list[str]] = []
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.fail: Callable[[list[str]], BaseException | None] = lambda names: None

    def write(self, messages: Sequence[Message]) -> None:
        names = [message.message_id for message in messages]
        self.writes.append(names)
        self.begun.release()
        assert self.go.acquire(timeout=DEADLINE)
        if error := self.fail(names):
            raise error


class Caller(threading.Thread):
    """A thread that puts; afterwards it knows the error, if there was one."""

    def __init__(self, commit: GroupCommit, *names: object) -> None:
        super().__init__(daemon=True)
        self.commit, self.names = commit, names
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.commit.put([message(name) for name in self.names])
        except BaseException as error:  # noqa: BLE001 - that is what is asked for
            self.error = error


def queued(commit: GroupCommit, number: int) -> None:
    """Wait until so many callers wait for the write that is under way."""
    event = threading.Event()
    for _ in range(3_000):
        if len(commit._queue) == number:
            return
        event.wait(0.01)
    pytest.fail(f"{len(commit._queue)} callers wait, not {number}")


def finish(*callers: Caller) -> None:
    for caller in callers:
        caller.join(DEADLINE)
        assert not caller.is_alive(), "a caller was never woken"


def test_single_caller_writes_at_once() -> None:
    store = Store()
    store.go.release()
    GroupCommit(store.write).put([message(1)])
    assert store.writes == [["1"]]


def test_those_who_arrive_during_a_write_share_the_next() -> None:
    store = Store()
    commit = GroupCommit(store.write)
    first = Caller(commit, 0)
    store.begun.acquire()
    others = [Caller(commit, number, f"{number}b") for number in range(1, 6)]
    queued(commit, 5)
    assert first.is_alive(), "a put returns when its own messages are durable, not before"
    store.go.release()
    finish(first)
    store.begun.acquire()
    assert all(caller.is_alive() for caller in others)
    store.go.release()
    finish(*others)

    assert store.writes[0] == ["0"]
    assert len(store.writes) == 2
    assert sorted(store.writes[1]) == sorted(f"{number}{suffix}" for number in range(1, 6) for suffix in ("", "b"))


def test_error_reaches_those_whose_write_failed_and_nobody_else() -> None:
    store = Store()
    store.fail = lambda names: OSError("disk full") if "0" not in names and "9" not in names else None
    commit = GroupCommit(store.write)
    first = Caller(commit, 0)
    store.begun.acquire()
    failing = [Caller(commit, number) for number in (1, 2, 3)]
    queued(commit, 3)
    for _ in range(3):
        store.go.release()
    finish(first, *failing)
    last = Caller(commit, 9)
    finish(last)

    assert (first.error, last.error) == (None, None)
    assert [str(caller.error) for caller in failing] == ["disk full"] * 3


def test_leader_that_is_ended_hands_over() -> None:
    store = Store()
    store.fail = lambda names: SystemExit() if "0" in names else None
    commit = GroupCommit(store.write)
    first = Caller(commit, 0)
    store.begun.acquire()
    second = Caller(commit, 1)
    queued(commit, 1)
    store.go.release()
    store.go.release()
    finish(first, second)

    assert isinstance(first.error, SystemExit)
    assert second.error is None
    assert store.writes == [["0"], ["1"]]


def test_end_of_the_leader_is_not_the_end_of_those_who_joined_it() -> None:
    store = Store()
    store.fail = lambda names: SystemExit("secret") if "first" not in names else None
    commit = GroupCommit(store.write)
    first = Caller(commit, "first")
    store.begun.acquire()
    leader = Caller(commit, "leader")
    queued(commit, 1)
    others = [Caller(commit, number) for number in range(3)]
    queued(commit, 4)
    store.go.release()
    store.go.release()
    finish(first, leader, *others)

    assert isinstance(leader.error, SystemExit)
    assert [type(caller.error) for caller in others] == [BufferUnavailable] * 3
    assert {str(caller.error) for caller in others} == {"the thread that wrote for several was ended by SystemExit"}


class Ended(BaseException):
    """As Celery's and gevent's time limits end a caller while it waits."""


@pytest.fixture
def usual_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


def when_waiting(commit: GroupCommit, number: int, act: Callable[[], None]) -> None:
    """Have the main thread do so, by a signal, once so many callers wait: it is one of them."""

    def send() -> None:
        queued(commit, number)
        with commit._lock:  # let go by the one who has come last
            pass
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    signal.signal(signal.SIGUSR1, lambda *_: act())
    threading.Thread(target=send, daemon=True).start()


@pytest.mark.usefixtures("usual_signals")
@pytest.mark.parametrize("leads", [False, True])
def test_caller_that_is_ended_while_it_waits_keeps_nobody_waiting(leads: bool) -> None:
    store = Store()
    commit = GroupCommit(store.write)
    first = Caller(commit, "first")
    store.begun.acquire()
    others: list[Caller] = []

    def end() -> None:
        others.append(Caller(commit, "other"))
        queued(commit, 2)
        if leads:
            store.go.release()
            finish(first)  # it has handed the lead to the one that ends here, and the other has joined that
        raise Ended

    when_waiting(commit, 1, end)
    with pytest.raises(Ended):
        commit.put([message("ended")])
    for _ in range(3):
        store.go.release()
    finish(first, *others)
    finish(Caller(commit, "late"))

    assert store.writes == [["first"], ["other"], ["late"]]
    assert others[0].error is None
    assert (commit._queue, commit._writing) == ([], 0)


@pytest.mark.usefixtures("usual_signals")
def test_lead_is_not_handed_to_a_caller_that_was_ended_before() -> None:
    """Of two who wait the second, who has joined the first, is ended, and then the first."""
    store = Store()
    commit = GroupCommit(store.write)
    first = Caller(commit, "first")
    store.begun.acquire()

    def wait_as_well() -> None:
        when_waiting(commit, 2, end)
        commit.put([message("joins")])

    def end() -> None:
        store.go.release()
        finish(first)
        raise Ended

    when_waiting(commit, 1, wait_as_well)
    with pytest.raises(Ended):
        commit.put([message("leads")])
    store.go.release()
    finish(Caller(commit, "late"))

    assert store.writes == [["first"], ["late"]]
    assert (commit._queue, commit._writing) == ([], 0)


def test_joined_write_is_bounded_and_nothing_is_left_behind() -> None:
    store = Store()
    commit = GroupCommit(store.write)
    first = Caller(commit, "first")
    store.begun.acquire()
    others = [Caller(commit, *(f"{number}-{n}" for n in range(200))) for number in range(7)]
    queued(commit, 7)
    for _ in range(8):
        store.go.release()
    finish(first, *others)

    written = [name for names in store.writes for name in names]
    assert len(written) == len(set(written)) == 1 + 7 * 200
    assert max(map(len, store.writes)) <= MAX_JOINED


def test_as_many_write_at_once_as_may_and_the_others_share_the_next() -> None:
    store = Store()
    commit = GroupCommit(store.write, max_joined=3, writers=2)
    writing = [Caller(commit, "a"), Caller(commit, "b")]
    for _ in writing:
        assert store.begun.acquire(timeout=DEADLINE)
    others = [Caller(commit, number) for number in range(5)]
    queued(commit, 5)
    for _ in range(5):
        store.go.release()
    finish(*writing, *others)

    assert sorted(map(len, store.writes)) == [1, 1, 2, 3]
    written = [name for names in store.writes for name in names]
    assert sorted(written) == sorted(["a", "b", *map(str, range(5))])


def test_who_has_waited_long_enough_writes_for_all_who_wait() -> None:
    """The write before never ends while they wait."""
    store = Store()
    commit = GroupCommit(store.write, patience=0.05)
    first = Caller(commit, "first")
    assert store.begun.acquire(timeout=DEADLINE)
    others = [Caller(commit, number) for number in range(5)]
    while sum(map(len, store.writes)) < 6:
        assert store.begun.acquire(timeout=DEADLINE), "nobody lost patience"
    assert first.is_alive()
    for _ in store.writes:
        store.go.release()
    finish(first, *others)

    assert len(store.writes) < 6
    store.go.release()
    commit.put([message("last")])
    assert commit._writing == 0
    assert store.writes[-1] == ["last"]


def test_put_larger_than_the_bound_goes_alone() -> None:
    store = Store()
    store.go.release()
    GroupCommit(store.write).put([message(number) for number in range(MAX_JOINED + 1)])
    assert [len(names) for names in store.writes] == [MAX_JOINED + 1]


@pytest.mark.parametrize(("writers", "patience"), [(1, None), (3, None), (1, 0.0001), (4, 0.001)])
def test_many_threads_many_puts_each_written_once(writers: int, patience: float | None) -> None:
    written: list[str] = []

    def write(messages: Sequence[Message]) -> None:
        written.extend(message.message_id for message in messages)

    commit = GroupCommit(write, max_joined=5, writers=writers, patience=patience)

    def puts(number: int) -> None:
        for n in range(200):
            commit.put([message(f"{number}-{n}")])
            assert f"{number}-{n}" in written[-20_000:]

    threads = [threading.Thread(target=puts, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert len(written) == len(set(written)) == 1_600
    assert (commit._queue, commit._writing) == ([], 0)
