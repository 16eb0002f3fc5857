from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import Any

import pytest
from django.core import signing
from django.test import override_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from segment_fallback.conf import DAY
from segment_fallback.page.token import MAX_LENGTH, SALT, InvalidToken, Page, sign, verify

PAGE = Page("/shop/é/", "Product", "Shop", {"sku": "A-1", "price": 19.9, "tags": ["a", None]})
TODAY = int(time.time() // DAY)


def signed(content: object) -> str:
    """A token that this site has signed, whatever it holds."""
    return signing.Signer(salt=SALT).sign_object(content)


@pytest.mark.parametrize(
    "page",
    [PAGE, Page("/"), Page("/", "Home"), Page("/d", source="docs"), Page("/\u2028</script>", 'a"b', "\x00", {"": {}})],
    ids=repr,
)
def test_token_gives_the_page_back(page: Page) -> None:
    found = verify(sign(page))
    assert found == replace(page, issued=found.issued)
    assert abs(found.issued - TODAY) <= 1


def test_token_of_one_day_is_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    def at(moment: float) -> str:
        monkeypatch.setattr(time, "time", lambda: moment)
        return sign(PAGE)

    morning, evening, tomorrow = at(20_000 * DAY), at(20_001 * DAY - 0.001), at(20_001 * DAY)
    assert morning == evening != tomorrow
    assert [verify(token).issued for token in (morning, tomorrow)] == [20_000, 20_001]


def test_age_counts_from_the_end_of_the_day_of_issue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 20_000.25 * DAY)
    page = verify(sign(PAGE))
    assert page.age == -0.75 * DAY
    monkeypatch.setattr(time, "time", lambda: 20_003.0 * DAY)
    assert page.age == 2 * DAY


@pytest.mark.parametrize("properties", [{}, {"text": "é" * 300}, {"text": "a" * 5_000}])
def test_token_is_safe_in_a_cookie_and_in_a_path(properties: dict[str, Any]) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_.:-]+", sign(Page("/", properties=properties)))


def test_token_too_long_is_refused_with_both_lengths() -> None:
    noise = {str(number): number * 0.37 for number in range(500)}
    with pytest.raises(ValueError, match=rf"token of \d+ characters; the limit is {MAX_LENGTH}"):
        sign(Page("/", properties=noise))


def test_token_longer_than_any_of_ours_is_not_even_read() -> None:
    content = [TODAY, "/", None, None, {"noise": "x" * MAX_LENGTH}, "default"]
    with pytest.raises(InvalidToken):
        verify(signed(content))


def test_token_of_another_site_is_refused() -> None:
    with override_settings(SECRET_KEY="another"):
        token = sign(PAGE)
    with pytest.raises(InvalidToken):
        verify(token)


def test_token_of_a_retired_secret_is_accepted_while_it_is_a_fallback() -> None:
    with override_settings(SECRET_KEY="retired"):
        token = sign(PAGE)
    with override_settings(SECRET_KEY_FALLBACKS=["retired"]):
        assert verify(token).path == PAGE.path


def test_token_under_another_salt_is_refused() -> None:
    content = [TODAY, "/", None, None, {}, "default"]
    assert verify(signed(content)).path == "/"
    for other in (signing.Signer(), signing.Signer(salt="segment_fallback")):
        with pytest.raises(InvalidToken):
            verify(other.sign_object(content))


@pytest.mark.parametrize(
    "content",
    [
        None,
        5,
        "text!",
        [],
        [TODAY, "/", None],
        [TODAY, "/", None, None, {}],
        [TODAY, "/", None, None, {}, "default", "more"],
        [TODAY, "/", None, None, {}, None],
        {"issued": TODAY, "path": "/", "name": None, "category": None, "properties": {}},
        [str(TODAY), "/", None, None, {}, "default"],
        [TODAY + 0.5, "/", None, None, {}, "default"],
        [None, "/", None, None, {}, "default"],
        [TODAY, None, None, None, {}, "default"],
        [TODAY, ["/"], None, None, {}, "default"],
        [TODAY, "/", 5, None, {}, "default"],
        [TODAY, "/", None, ["Shop"], {}, "default"],
        [TODAY, "/", None, None, None, "default"],
        [TODAY, "/", None, None, [["a", 1]], "default"],
    ],
    ids=repr,
)
def test_token_of_another_form_is_refused_though_well_signed(content: object) -> None:
    with pytest.raises(InvalidToken):
        verify(signed(content))


@pytest.mark.parametrize("payload", ["", ".", ".AAAA", "not base64!", "AAAA", "é", ".eJw"])
def test_token_that_holds_no_json_is_refused_though_well_signed(payload: str) -> None:
    with pytest.raises(InvalidToken):
        verify(signing.Signer(salt=SALT).sign(payload))


@settings(deadline=None)  # a busy machine is no failure
@given(st.text(st.characters(exclude_categories=[]), max_size=MAX_LENGTH + 10))
def test_garbage_is_refused(token: str) -> None:
    with pytest.raises(InvalidToken):
        verify(token)


@settings(deadline=None)  # a busy machine is no failure
@given(st.binary(max_size=500))
def test_random_bytes_are_refused(token: bytes) -> None:
    with pytest.raises(InvalidToken):
        verify(token.decode("latin-1"))


TOKEN = sign(PAGE)


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(0, len(TOKEN) - 1), st.characters(min_codepoint=33, max_codepoint=126))
def test_token_changed_in_one_character_is_refused(position: int, character: str) -> None:
    changed = TOKEN[:position] + character + TOKEN[position + 1 :]
    if changed == TOKEN:
        assert verify(changed).path == PAGE.path
    else:
        with pytest.raises(InvalidToken):
            verify(changed)


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(0, len(TOKEN) - 1))
def test_token_cut_off_is_refused(length: int) -> None:
    with pytest.raises(InvalidToken):
        verify(TOKEN[:length])
