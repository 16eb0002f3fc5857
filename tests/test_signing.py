from __future__ import annotations

import time

import pytest
from django.core.signing import BadSignature, Signer, TimestampSigner
from hypothesis import given
from hypothesis import strategies as st

from segment_fallback.signing import unsign, unsign_timed

SALT = "tests.salt"
SECRETS = ("new", b"retired", "older")

anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(anything, st.sampled_from(SECRETS))
def test_what_django_has_signed_is_read(value: str, secret: str | bytes) -> None:
    signed = Signer(key=secret, salt=SALT).sign(value)
    assert unsign(signed, SALT, SECRETS) == value
    with pytest.raises(BadSignature):
        unsign(signed, "another", SECRETS)
    with pytest.raises(BadSignature):
        unsign(signed, SALT, ("stranger",))


@given(st.one_of(anything, st.builds("{}:{}".format, anything, anything)))
def test_what_django_refuses_is_refused(text: str) -> None:
    with pytest.raises(BadSignature):
        Signer(key="new", salt=SALT, fallback_keys=["older"]).unsign(text)
    with pytest.raises(BadSignature):
        unsign(text, SALT, SECRETS)


@pytest.mark.parametrize("change", [lambda s: s[:-1], lambda s: f"{s}=", lambda s: f"x{s}", lambda s: s.swapcase()])
def test_changed_signature_is_refused(change: object) -> None:
    assert callable(change)
    with pytest.raises(BadSignature):
        unsign(change(Signer(key="new", salt=SALT).sign("value")), SALT, SECRETS)


@pytest.mark.parametrize("text", ["\udcff:x", "x:\udcff", "\udcff"])
def test_lone_surrogates_are_refused(text: str) -> None:
    with pytest.raises((BadSignature, ValueError)):
        unsign(text, SALT, SECRETS)


def test_age_is_that_of_the_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 1_000)
    signed = TimestampSigner(key="older", salt=SALT).sign("m:value")
    monkeypatch.undo()
    value, age = unsign_timed(signed, SALT, SECRETS)
    assert value == "m:value"
    assert age == pytest.approx(1_000, abs=5)


def test_value_without_a_time_is_refused() -> None:
    with pytest.raises(BadSignature):
        unsign_timed(Signer(key="new", salt=SALT).sign("value"), SALT, SECRETS)
