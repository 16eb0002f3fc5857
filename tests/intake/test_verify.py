from __future__ import annotations

import ipaddress

import pytest
from django.test import RequestFactory, override_settings
from hypothesis import given
from hypothesis import strategies as st

from segment_fallback.conf import Settings
from segment_fallback.intake import identity
from segment_fallback.intake.verify import RateLimiter, _network
from tests.intake.visits import Visit, outcomes, waiting


@pytest.mark.parametrize(
    ("proxies", "forwarded", "remote", "ip"),
    [
        (0, "", "203.0.113.9", "203.0.113.9"),
        (0, "198.51.100.1", "203.0.113.9", "203.0.113.9"),
        (1, "198.51.100.1", "10.0.0.1", "198.51.100.1"),
        (1, "6.6.6.6, 198.51.100.1", "10.0.0.1", "198.51.100.1"),
        (2, "6.6.6.6, 198.51.100.1, 10.0.0.2", "10.0.0.1", "198.51.100.1"),
        (2, "198.51.100.1", "10.0.0.1", "10.0.0.1"),
        (1, "nonsense", "10.0.0.1", None),
        (1, "", "10.0.0.1", None),
        (0, "", "", None),
        (1, " 2001:DB8::1 ", "10.0.0.1", "2001:db8::1"),
        (0, "", "::ffff:203.0.113.9", "203.0.113.9"),
        (1, "::ffff:198.51.100.1", "10.0.0.1", "198.51.100.1"),
        (1, "2001:db8::1%</script>", "10.0.0.1", "2001:db8::1"),
    ],
)
def test_client_ip_is_believed_as_far_as_proxies_are_trusted(
    proxies: int, forwarded: str, remote: str, ip: str | None
) -> None:
    request = RequestFactory().get("/", REMOTE_ADDR=remote, HTTP_X_FORWARDED_FOR=forwarded)
    assert identity.client_ip(request, Settings(TRUSTED_PROXIES=proxies)) == ip


@given(
    st.one_of(st.from_regex(r"[0-9. x]{0,4}(\.[0-9x]{0,4}){2,4}"), st.ip_addresses(v=4).map(str), st.text(max_size=9))
)
def test_client_ip_is_what_ipaddress_takes_for_one(text: str) -> None:
    request = RequestFactory().get("/", REMOTE_ADDR=text)
    try:
        expected = str(ipaddress.ip_address(text.strip()))
    except ValueError:
        expected = None
    if ":" not in text and "%" not in text:
        assert identity.client_ip(request, Settings()) == expected


@given(st.ip_addresses(v=4))
def test_address_is_limited_if_it_is_public(ip: ipaddress.IPv4Address) -> None:
    assert _network(str(ip)) == (str(ip) if ip.is_global else None)


def test_each_first_number_of_an_address_is_judged_as_ipaddress_does() -> None:
    for first in range(256):
        for rest in ("0.0.1", "64.0.1", "88.99.1", "168.0.1", "254.1.1", "18.0.1", "51.100.1", "0.113.1"):
            ip = ipaddress.ip_address(f"{first}.{rest}")
            assert _network(str(ip)) == (str(ip) if ip.is_global else None)


def test_limiter_counts_by_key_up_to_the_limit() -> None:
    limiter = RateLimiter()
    assert [limiter.hit("a", 2) for _ in range(4)] == [True, True, False, False]
    assert limiter.hit("b", 2)


def test_limiter_starts_anew_with_the_next_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    limiter = RateLimiter()
    assert [limiter.hit("a", 1) for _ in range(2)] == [True, False]
    monkeypatch.setattr("segment_fallback.intake.verify.time.monotonic", lambda: 1e9)
    assert limiter.hit("a", 1)


def test_limiter_remembers_no_more_keys_than_its_limit() -> None:
    limiter = RateLimiter()
    limiter.MAX_KEYS = 3
    assert all(limiter.hit(str(key), 1) for key in range(10))
    assert limiter.hit("9", 1), "a key that is not remembered passes"
    assert not limiter.hit("0", 1)


LIMITED = override_settings(SEGMENT_FALLBACK={"WRITE_KEY": "k", "OUTCOME_INTERVAL": 0, "RATE_LIMIT": 20})


@pytest.mark.django_db
@LIMITED
@pytest.mark.parametrize(
    ("address", "accepted"),
    [
        (lambda n: "8.8.8.8", 20),
        (lambda n: f"2a00:1450:1:2::{n:x}", 20),
        (lambda n: f"2a00:1450:1:{n:x}::1", 30),
        (lambda n: "::ffff:8.8.8.8", 20),
        (lambda n: f"::ffff:8.8.8.{n}", 30),
        (lambda n: "10.0.0.1", 30),
        (lambda n: "", 30),
    ],
    ids=[
        "an address",
        "a subscriber's /64",
        "many subscribers",
        "an address of IPv4, mapped",
        "many mapped",
        "a proxy",
        "none known",
    ],
)
def test_flood_from_one_address_is_damped(address: object, accepted: int) -> None:
    assert callable(address)
    for number in range(30):
        Visit(headers={"REMOTE_ADDR": address(number)}).send()

    refused = {"rate": 30 - accepted} if accepted < 30 else {}
    assert outcomes() == {"accepted": accepted, **refused}
    assert len(waiting()) == accepted


@pytest.mark.django_db
@LIMITED
def test_flood_from_one_visitor_is_damped() -> None:
    visit = Visit()
    visit.client.cookies["ajs_anonymous_id"] = "one"
    for _ in range(5):
        visit.send()

    assert outcomes() == {"accepted": 2, "rate": 3}


@pytest.mark.django_db
@override_settings(SEGMENT_FALLBACK={"WRITE_KEY": "k", "OUTCOME_INTERVAL": 0, "RATE_LIMIT": 0})
def test_limit_of_zero_is_none() -> None:
    for _ in range(5):
        Visit(headers={"REMOTE_ADDR": "8.8.8.8"}).send()
    assert outcomes() == {"accepted": 5}
