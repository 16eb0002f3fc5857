"""What every store of profiles must do."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from django.db import connections
from django.test import override_settings

from segment_fallback.buffers.base import now_ms
from segment_fallback.profiles import Ids, ProfileStore
from segment_fallback.profiles.store import Stored

LATER = 10_000_000_000_000


def someone() -> Ids:
    return Ids(user_id=uuid4().hex)


def traits_of(store: ProfileStore, ids: Ids) -> dict[str, Any] | None:
    profile = store.get(ids)
    return None if profile is None else dict(profile.traits)


class StoreContract:
    """Subclasses give the fixture ``store``."""

    at_once = True
    """Whether the store can be asked by threads in a test."""

    def test_nothing_is_known_of_a_stranger(self, store: ProfileStore) -> None:
        assert store.get(someone()) is None
        assert store.get(Ids()) is None

    def test_profile_is_what_was_told(self, store: ProfileStore) -> None:
        ids, at = Ids(f"ü/{uuid4()}?#\ud800", None), now_ms() - 5
        assert store.update(ids, {"vip": True, "plan": "pro", "nested": {"a": [1, 2.5, None]}}, at)
        profile = store.get(ids)
        assert profile is not None
        assert profile.traits == {"vip": True, "plan": "pro", "nested": {"a": [1, 2.5, None]}}
        assert (profile.user_id, profile.updated) == (ids.user_id, at)

    def test_traits_are_added_one_by_one(self, store: ProfileStore) -> None:
        ids, now = someone(), now_ms()
        store.update(ids, {"a": 1, "b": 1}, now - 2)
        store.update(ids, {"b": 2}, now - 1)
        assert traits_of(store, ids) == {"a": 1, "b": 2}

    def test_newest_value_wins_in_whatever_order_they_come(self, store: ProfileStore) -> None:
        now = now_ms()
        changes: list[tuple[dict[str, Any], int]] = [
            ({"a": 1, "b": 1}, now - 30),
            ({"a": 2}, now - 20),
            ({"b": None}, now - 10),
        ]
        for order in itertools.permutations(changes):
            ids = someone()
            for traits, at in (*order, *order):
                store.update(ids, traits, at)
            assert traits_of(store, ids) == {"a": 2}

    def test_of_two_at_the_same_time_always_the_same_one_wins(self, store: ProfileStore) -> None:
        now, found = now_ms(), []
        for values in ((True, False), (False, True)):
            ids = someone()
            for value in (*values, *values):
                store.update(ids, {"a": value}, now)
            found.append(traits_of(store, ids))
        assert found[0] == found[1]

    def test_clock_that_is_ahead_does_not_keep_later_changes_out(self, store: ProfileStore) -> None:
        ids = someone()
        store.update(ids, {"a": 1}, now_ms() + 3_600_000)
        while now_ms() <= store.records(ids)[ids.keys[0]].updated:
            pass
        store.update(ids, {"a": 2}, now_ms())
        assert traits_of(store, ids) == {"a": 2}

    def test_what_is_older_than_its_time_is_not_taken(self, store: ProfileStore) -> None:
        ids = someone()
        with override_settings(SEGMENT_FALLBACK={"WRITE_KEY": "x", "PROFILE_TTL": 60}):
            assert not store.update(ids, {"a": 1}, now_ms() - 60_001)
            assert store.update(ids, {"b": 1}, now_ms() - 59_000)
        assert traits_of(store, ids) == {"b": 1}

    def test_ids_are_told_apart(self, store: ProfileStore) -> None:
        name, now = uuid4().hex, now_ms()
        store.update(Ids(user_id=name), {"a": "user"}, now)
        store.update(Ids(anonymous_id=name), {"a": "anonymous"}, now)
        store.update(Ids(user_id=name.upper() + "X"), {"a": "another"}, now)
        assert traits_of(store, Ids(user_id=name)) == {"a": "user"}
        assert traits_of(store, Ids(anonymous_id=name)) == {"a": "anonymous"}
        assert traits_of(store, Ids(user_id=name + "x")) is None

    def test_what_is_known_of_a_user_is_not_told_of_his_browser(self, store: ProfileStore) -> None:
        ids = Ids(uuid4().hex, uuid4().hex)
        store.update(ids, {"a": 1}, now_ms())
        assert traits_of(store, Ids(user_id=ids.user_id)) == {"a": 1}
        assert traits_of(store, Ids(anonymous_id=ids.anonymous_id)) is None

    def test_merged_the_user_has_the_traits_of_his_browser_and_the_browser_none(self, store: ProfileStore) -> None:
        ids, now = Ids(uuid4().hex, uuid4().hex), now_ms()
        browser, user = Ids(anonymous_id=ids.anonymous_id), Ids(user_id=ids.user_id)
        store.update(browser, {"a": "browser", "b": "browser"}, now - 20)
        store.update(user, {"b": "user", "c": "user"}, now - 10)
        assert traits_of(store, ids) == {"a": "browser", "b": "user", "c": "user"}
        for _ in range(2):
            store.merge(ids)
            assert traits_of(store, user) == {"a": "browser", "b": "user", "c": "user"}
            assert traits_of(store, browser) is None
        store.update(browser, {"d": 1}, now)
        assert traits_of(store, browser) == {"d": 1}

    def test_merge_of_a_single_id_changes_nothing(self, store: ProfileStore) -> None:
        ids = someone()
        store.update(ids, {"a": 1}, now_ms())
        store.merge(ids)
        store.merge(Ids(ids.user_id, uuid4().hex))
        assert traits_of(store, ids) == {"a": 1}

    def test_deleted_stays_deleted_whatever_comes_again(self, store: ProfileStore) -> None:
        ids, now = Ids(uuid4().hex, uuid4().hex), now_ms()
        browser = Ids(anonymous_id=ids.anonymous_id)
        store.update(ids, {"a": 1}, now - 20)
        store.update(browser, {"a": 1}, now - 20)
        store.delete(ids, now - 10)
        store.update(ids, {"a": 1}, now - 20)
        store.update(browser, {"a": 1}, now - 10)
        assert store.get(ids) is None
        store.update(ids, {"b": 2}, now - 9)
        store.delete(ids, now - 10)
        assert traits_of(store, ids) == {"b": 2}
        store.delete(ids)
        assert store.get(ids) is None

    def test_expired_profile_is_not_seen_and_another_may_take_its_place(self, store: ProfileStore) -> None:
        key = someone().keys[0]
        assert store.write(key, "old", 0, expires=now_ms() + 1_000)
        wait_until(now_ms() + 1_100)
        assert store.read([key]) == {}
        assert store.write(key, "new", 0, expires=LATER)
        assert store.read([key])[key].text == "new"

    def test_write_changes_nothing_where_another_was_first(self, store: ProfileStore) -> None:
        key = someone().keys[0]
        assert not store.write(key, "a", 1, expires=LATER)
        assert store.write(key, "a", 0, expires=LATER)
        assert not store.write(key, "b", 0, expires=LATER)
        assert store.read([key]) == {key: Stored("a", 1)}
        assert store.write(key, "b", 1, expires=LATER)
        assert not store.write(key, "c", 1, expires=LATER)
        assert store.read([key]) == {key: Stored("b", 2)}

    def test_several_are_read_at_once(self, store: ProfileStore) -> None:
        keys = [someone().keys[0] for _ in range(2)]
        for key in keys:
            store.write(key, key, 0, expires=LATER)
        assert store.read([*keys, "u-missing"]) == {key: Stored(key, 1) for key in keys}
        assert store.read([]) == {}

    def test_large_profile_keeps_what_changed_last(self, store: ProfileStore) -> None:
        ids, now = someone(), now_ms()
        for number in range(10):
            store.update(ids, {str(number): "x" * 30_000}, now - 10 + number)
        assert traits_of(store, ids) == {str(number): "x" * 30_000 for number in range(4, 10)}

    def test_no_change_is_lost_where_many_write_at_once(self, store: ProfileStore) -> None:
        ids, now, failed = someone(), now_ms(), []
        names = [str(number) for number in range(6)]

        def write(name: str) -> None:
            try:
                store.update(ids, {name: 1}, now)
            except Exception as error:  # noqa: BLE001 - seen below
                failed.append(error)
            finally:
                connections.close_all()

        if self.at_once:
            run_at_once([lambda name=name: write(name) for name in names])  # type: ignore[misc]
        else:
            for name in names:
                write(name)
        assert not failed
        assert traits_of(store, ids) == dict.fromkeys(names, 1)


def run_at_once(calls: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def wait_until(moment: int) -> None:
    while now_ms() < moment:
        threading.Event().wait(0.02)
