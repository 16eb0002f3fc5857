from __future__ import annotations

import pytest

from segment_fallback.wording import counted


@pytest.mark.parametrize(
    ("number", "words", "told"),
    [
        (0, ("message",), "0 messages"),
        (1, ("message",), "1 message"),
        (1_234, ("message",), "1,234 messages"),
        (1, ("batch", "batches"), "1 batch"),
        (2, ("batch", "batches"), "2 batches"),
    ],
)
def test_number_and_noun_agree(number: int, words: tuple[str, ...], told: str) -> None:
    assert counted(number, *words) == told
