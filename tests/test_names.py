from __future__ import annotations

import pytest
from django.test import override_settings
from django.urls import NoReverseMatch, Resolver404, resolve, reverse

from segment_fallback.names import endpoint_names, public_key, source_of_key

TWO_SOURCES = {"WRITE_KEY": "wk", "SOURCES": {"docs": {"WRITE_KEY": "docs-key"}, "off": {"WRITE_KEY": ""}}}


def test_endpoint_name_is_derived_from_the_secret() -> None:
    with override_settings(SECRET_KEY="one", SECRET_KEY_FALLBACKS=[]):
        [one] = endpoint_names()
    with override_settings(SECRET_KEY="two", SECRET_KEY_FALLBACKS=["one"]):
        two, retired = endpoint_names()
    assert retired == one != two
    assert len(one) == len(two) == 6
    assert (one + two).isalnum()
    assert (one + two).islower()


def test_endpoint_name_fixed_keeps_the_derived_ones_alive() -> None:
    derived = endpoint_names()
    with override_settings(SEGMENT_FALLBACK={"WRITE_KEY": "wk", "ENDPOINT_NAME": "x"}):
        assert endpoint_names() == ("x", *derived)


def test_endpoint_name_of_a_retired_secret_still_resolves() -> None:
    with override_settings(SECRET_KEY="one"):
        url = reverse("segment_fallback:noscript", args=[endpoint_names()[0], "token"])
    with override_settings(SECRET_KEY="two", SECRET_KEY_FALLBACKS=["one"]):
        assert resolve(url).url_name == "noscript"
    with override_settings(SECRET_KEY="two"), pytest.raises(Resolver404):
        resolve(url)
    with pytest.raises(NoReverseMatch):
        reverse("segment_fallback:noscript", args=["not/a/name", "token"])


def test_public_key_names_its_source_and_not_the_write_key() -> None:
    with override_settings(SEGMENT_FALLBACK=TWO_SOURCES):
        for alias, write_key in (("default", "wk"), ("docs", "docs-key")):
            source = source_of_key(public_key(alias))
            assert source
            assert (source.alias, source.write_key) == (alias, write_key)
            assert write_key not in public_key(alias)
        assert public_key() != public_key("docs")
        assert public_key().isalnum()


def test_source_of_key_knows_a_write_key_itself_and_no_other_text() -> None:
    with override_settings(SEGMENT_FALLBACK=TWO_SOURCES):
        source = source_of_key("docs-key")
        assert source
        assert source.alias == "docs"
        assert source_of_key("") is None
        assert source_of_key("other") is None
        assert source_of_key(public_key("off")) is None


def test_public_key_of_a_retired_secret_is_still_known() -> None:
    with override_settings(SECRET_KEY="one"):
        old = public_key()
    with override_settings(SECRET_KEY="two", SECRET_KEY_FALLBACKS=["one"]):
        assert source_of_key(old) == source_of_key(public_key())
        assert public_key() != old
    with override_settings(SECRET_KEY="two"):
        assert source_of_key(old) is None
