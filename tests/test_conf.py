from __future__ import annotations

import ast
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from segment_fallback import conf
from segment_fallback.buffers.base import FAR_AHEAD
from segment_fallback.conf import KEYS, Settings, compile_settings, default_of, get_settings
from segment_fallback.conf_rules import RULES


def problems(**keys: Any) -> list[tuple[str, str]]:
    """(key, kind) of what is wrong with these keys beside a good WRITE_KEY."""
    return [(problem.key, problem.kind) for problem in compile_settings({"WRITE_KEY": "wk", **keys})[1]]


def explanation(**keys: Any) -> str:
    return compile_settings({"WRITE_KEY": "wk", **keys})[1][0].explanation


def test_settings_without_any_are_the_defaults() -> None:
    with override_settings(SEGMENT_FALLBACK={}):
        assert get_settings() == Settings()
    assert Settings().API_HOST == "https://api.segment.io"
    assert Settings().BUFFERS == {"default": {"BACKEND": "segment_fallback.buffers.database.DatabaseBuffer"}}


@pytest.mark.parametrize("key", [key for key in KEYS if key != "WRITE_KEY"])
def test_default_written_out_changes_nothing(key: str) -> None:
    assert compile_settings({"WRITE_KEY": "wk", key: default_of(key)}) == (Settings(WRITE_KEY="wk"), [])


def test_settings_are_read_live() -> None:
    with override_settings(SEGMENT_FALLBACK={"WRITE_KEY": "one"}):
        assert get_settings().WRITE_KEY == "one"
        with override_settings(SEGMENT_FALLBACK={"WRITE_KEY": "two"}):
            assert get_settings().WRITE_KEY == "two"
        assert get_settings().WRITE_KEY == "one"


def test_settings_are_compiled_once_for_a_dict() -> None:
    assert get_settings() is get_settings()


def test_settings_removed_while_running_are_the_defaults(settings: Any) -> None:
    assert get_settings().WRITE_KEY == "tests-write-key"
    del settings.SEGMENT_FALLBACK
    assert get_settings() == Settings()


WRONG_TYPES: list[tuple[str, Any, str]] = [
    ("WRITE_KEY", None, "a string, not NoneType"),
    ("WRITE_KEY", b"wk", "a string, not bytes"),
    ("API_HOST", 1, "a string, not int"),
    ("CDN_HOST", ["https://cdn.example"], "a string, not list"),
    ("BUFFERS", "database", "a dict, not str"),
    ("OAUTH", "id", "a dict, not str"),
    ("SOURCES", ["docs"], "a dict, not list"),
    ("RESEND_STALE", 1, "True or False, not int"),
    ("SPOOL", {"BACKEND": "path"}, "a string or None, not dict"),
    ("SPOOL_MAX_BYTES", 1e6, "a whole number, not float"),
    ("ARCHIVE", None, "a string or True or False, not NoneType"),
    ("ARCHIVE_DAYS", "400", "a whole number, not str"),
    ("ENDPOINT_NAME", 7, "a string or None, not int"),
    ("ALLOWED_HOSTS", "shop.example", "a list of strings or None, not str"),
    ("ALLOWED_HOSTS", [1], "a list of strings or None, not list"),
    ("STRICT_REFERER", 1, "True or False, not int"),
    ("TOKEN_MAX_AGE", 1.5, "a whole number, not float"),
    ("TRUSTED_PROXIES", True, "a whole number, not bool"),
    ("RATE_LIMIT", None, "a whole number, not NoneType"),
    ("COOKIE_DOMAIN", False, "a string or None, not bool"),
    ("COOKIELESS", 1, "True or False, not int"),
    ("RESET_AT_LOGOUT", None, "True or False, not NoneType"),
    ("INJECT", "/", "True or False, not str"),
    ("USER_ID", len, "a string or None, not builtin_function_or_method"),
    ("RAISE_ERRORS", 1, "True or False, not int"),
    ("ON_COMMIT", "yes", "True or False, not str"),
    ("CAPTURE_SDK", None, "True or False, not NoneType"),
    ("AUTH_EVENTS", 1, "True or False, not int"),
    ("TRAITS", {"email"}, "a string or None, not set"),
    ("EVENT_ATTEMPTS", 1.5, "a whole number, not float"),
    ("PLAN_BLOCK", 1, "True or False, not int"),
    ("LOAD_OPTIONS", [("a", 1)], "a dict, not list"),
    ("HONOUR_GPC", "yes", "True or False, not str"),
    ("HONOUR_DNT", None, "True or False, not NoneType"),
    ("CONSENT", "cookie", "a dict, not str"),
    ("AUTOLOAD", 0, "True or False, not int"),
    ("NAVIGATION", True, "a string, not bool"),
    ("IDENTIFY", None, "True or False, not NoneType"),
    ("EXTERNAL_SCRIPT", "path", "True or False, not str"),
    ("PATIENCE", True, "a number, not bool"),
    ("HOLD", "1", "a number or None, not str"),
    ("TRUST_CLIENT_USER_ID", "yes", "True or False, not str"),
    ("SELF_HOSTED", Path("folder"), f"a string or None, not {type(Path()).__name__}"),
    ("CDN_CACHE", None, "a string, not NoneType"),
    ("FIRST_PARTY", 1, "True or False, not int"),
    ("COLLECT", True, "a string, not bool"),
    ("PROFILES", "path", "a dict, not str"),
    ("PROFILE_TTL", "365", "a number, not str"),
    ("PROFILE_SECRETS", "the-shared-secret", "a list of strings, not str"),
    ("PROFILE_API", "token", "a dict, not str"),
    ("VARIATIONS", True, "a string, not bool"),
    ("CLIENT_SIDE_TRAITS", "plan", "a list of strings, not str"),
    ("EAGER", "yes", "True or False, not str"),
    ("HEALTH_MAX_AGE", "600", "a number, not str"),
    ("HEALTH_MAX_SILENCE", None, "a number, not NoneType"),
    ("LAST_EVENTS", 50, "True or False or None, not int"),
    ("FLUSH_BUDGET", None, "a number, not NoneType"),
    ("SEND_TIMEOUT", (1, 2), "a number, not tuple"),
    ("SENDS_IN_FLIGHT", 1.5, "a whole number, not float"),
    ("GZIP", 0, "True or False, not int"),
    ("OUTCOME_INTERVAL", False, "a number, not bool"),
]


@pytest.mark.parametrize(("key", "value", "wanted"), WRONG_TYPES)
def test_wrong_type_falls_back_to_its_default_and_is_reported(key: str, value: Any, wanted: str) -> None:
    settings, found = compile_settings({"WRITE_KEY": "wk", key: value})
    assert getattr(settings, key) == conf.INSTEAD.get(key, default_of(key))
    assert [(problem.key, problem.kind) for problem in found] == [(key, "type")]
    assert found[0].explanation == f"SEGMENT_FALLBACK[{key!r}] must be {wanted}"


def test_wrong_types_have_a_case_for_every_key() -> None:
    assert {key for key, _, _ in WRONG_TYPES} == set(KEYS)


WRONG_VALUES: list[tuple[str, Any]] = [
    ("WRITE_KEY", "abc\n"),
    ("WRITE_KEY", " "),
    ("WRITE_KEY", "a b"),
    ("WRITE_KEY", "abc\u200b"),
    ("API_HOST", "api.segment.io"),
    ("API_HOST", "https://"),
    ("API_HOST", "https://api.segment.io/v1"),
    ("API_HOST", "https://api.segment.io?x=1"),
    ("API_HOST", "https://api.segment.io#x"),
    ("API_HOST", "https://[half-an-address"),
    ("API_HOST", "https://host:port"),
    ("API_HOST", "https://user:password@host"),
    ("API_HOST", "ftp://host"),
    ("CDN_HOST", "//cdn.segment.com"),
    ("CDN_HOST", "https://cdn.segment.com "),
    ("OAUTH", {"client_id": "x"}),
    ("OAUTH", {"client_id": "x", "client_key": "x", "key_id": "x", "secret": "x", 5: "x"}),
    ("SOURCES", {"default": {"WRITE_KEY": "x"}}),
    ("SOURCES", {5: {"WRITE_KEY": "x"}}),
    ("SOURCES", {"docs": "x"}),
    ("SOURCES", {"docs": {}}),
    ("SOURCES", {"docs": {"WRITE_KEY": "abc\n"}}),
    ("SOURCES", {"docs": {"WRITE_KEY": "a b"}}),
    ("SOURCES", {"docs": {"WRITE_KEY": "x", "write_key": "x", 5: "x"}}),
    ("SOURCES", {"docs": {"WRITE_KEY": "x", "API_HOST": "eu"}}),
    ("SOURCES", {"docs": {"WRITE_KEY": "x", "API_HOST": None}}),
    ("SOURCES", {"docs": {"WRITE_KEY": "x", "OAUTH": {"client_id": "x"}}}),
    ("SOURCES", {"docs": {"WRITE_KEY": "x", "OAUTH": None}}),
    ("COLLECT", "proxy"),
    ("VARIATIONS", "cookie"),
    ("BUFFERS", {}),
    ("BUFFERS", {"default": "path"}),
    ("BUFFERS", {"default": {"OPTIONS": {}}}),
    ("BUFFERS", {"default": {"BACKEND": "path", "options": {}}}),
    ("BUFFERS", {"default": {"BACKEND": "path", "options": {}, 1: 2}}),
    ("BUFFERS", {"default": {"BACKEND": "path", "OPTIONS": []}}),
    ("SPOOL_MAX_BYTES", -1),
    ("ARCHIVE", ""),
    ("ARCHIVE_DAYS", -1),
    ("ARCHIVE_DAYS", 36_501),
    ("ENDPOINT_NAME", ""),
    ("ENDPOINT_NAME", "a/b"),
    ("ENDPOINT_NAME", "é"),
    ("ENDPOINT_NAME", "a" * 41),
    ("TOKEN_MAX_AGE", 0),
    ("TRUSTED_PROXIES", -1),
    ("RATE_LIMIT", -1),
    ("EVENT_ATTEMPTS", 0),
    ("CONSENT", {"cookie": "consent"}),
    ("CONSENT", {"VALUE": "yes"}),
    ("CONSENT", {"COOKIE": "con sent"}),
    ("CONSENT", {"COOKIE": "consent", "VALUE": ""}),
    ("CONSENT", {"COOKIE": "consent", "VALUE": True}),
    ("CONSENT", {"COOKIE": "consent", "VALUE": "a", "CONTAINS": "b"}),
    ("CONSENT", {"COOKIE": "consent", "CALLBACK": True}),
    ("CONSENT", {"CALLBACK": False}),
    ("NAVIGATION", "automatic"),
    ("PROFILES", {"OPTIONS": {}}),
    ("PROFILES", {"BACKEND": "path", "options": {}, 1: 2}),
    ("PROFILES", {"BACKEND": "path", "OPTIONS": []}),
    ("PROFILE_TTL", 0),
    ("PROFILE_SECRETS", [""]),
    ("PROFILE_SECRETS", ["the-shared-secret", "short"]),
    ("PROFILE_API", {"SPACE": "s"}),
    ("PROFILE_API", {"SPACE": "s", "TOKEN": "t", "token": "t", 1: 2}),
    ("PROFILE_API", {"SPACE": "", "TOKEN": "t"}),
    ("PROFILE_API", {"SPACE": "s", "TOKEN": "t\n"}),
    ("PROFILE_API", {"SPACE": "s", "TOKEN": 5}),
    ("PROFILE_API", {"SPACE": "s", "TOKEN": "t", "HOST": "profiles.segment.com"}),
    ("PROFILE_API", {"SPACE": "s", "TOKEN": "t", "HOST": None}),
    ("PROFILE_API", {"SPACE": "s", "TOKEN": "t", "TIMEOUT": 0}),
    ("PROFILE_API", {"SPACE": "s", "TOKEN": "t", "RATE": True}),
    ("PROFILE_API", {"SPACE": "s", "TOKEN": "t", "REFRESH": math.inf}),
    ("PATIENCE", 0),
    ("PATIENCE", math.inf),
    ("PATIENCE", math.nan),
    ("HOLD", -0.1),
    ("HOLD", math.inf),
    ("FLUSH_BUDGET", 0.0),
    ("HEALTH_MAX_AGE", 0.0),
    ("HEALTH_MAX_SILENCE", -1.0),
    ("SEND_TIMEOUT", -1),
    ("SEND_TIMEOUT", 0),
    ("SEND_TIMEOUT", 601),
    ("SENDS_IN_FLIGHT", 0),
    ("OUTCOME_INTERVAL", -1.0),
]


@pytest.mark.parametrize(("key", "value"), WRONG_VALUES)
def test_wrong_value_falls_back_to_its_default_and_is_reported(key: str, value: Any) -> None:
    settings, found = compile_settings({"WRITE_KEY": "wk", key: value})
    assert getattr(settings, key) == conf.INSTEAD.get(key, default_of(key))
    assert [(problem.key, problem.kind) for problem in found] == [(key, "value")]
    assert found[0].explanation.startswith(f"SEGMENT_FALLBACK[{key!r}]")


def test_wrong_values_have_a_case_for_every_rule() -> None:
    assert {key for key, _ in WRONG_VALUES} == set(RULES)


@pytest.mark.parametrize(
    ("key", "value", "compiled"),
    [
        ("PATIENCE", 3, 3),
        ("HOLD", 0, 0),
        ("ALLOWED_HOSTS", ["a.example", ".b.example"], ("a.example", ".b.example")),
        ("ALLOWED_HOSTS", (), ()),
        ("ALLOWED_HOSTS", None, None),
        ("LOAD_OPTIONS", OrderedDict(obfuscate=True), {"obfuscate": True}),
        ("API_HOST", "http://localhost:8001", "http://localhost:8001"),
        ("API_HOST", "http://[::1]:8001/", "http://[::1]:8001/"),
        ("ENDPOINT_NAME", "a-Z_9", "a-Z_9"),
        ("SEND_TIMEOUT", 600, 600),
        ("SOURCES", {"docs": {"WRITE_KEY": ""}}, {"docs": {"WRITE_KEY": ""}}),
        ("RATE_LIMIT", 0, 0),
        ("CONSENT", {}, {}),
        ("CONSENT", {"COOKIE": "consent"}, {"COOKIE": "consent"}),
        ("CONSENT", {"COOKIE": "c", "CONTAINS": "C0002:1"}, {"COOKIE": "c", "CONTAINS": "C0002:1"}),
        ("NAVIGATION", "manual", "manual"),
    ],
)
def test_value_of_another_fitting_form_is_taken(key: str, value: Any, compiled: Any) -> None:
    settings, found = compile_settings({"WRITE_KEY": "wk", key: value})
    assert (getattr(settings, key), found) == (compiled, [])


@pytest.mark.parametrize("key", ["WRITEKEY", "write_key", "DATABASE", 5, None])
def test_unknown_key_is_reported_and_the_others_count(key: Any) -> None:
    settings, found = compile_settings({"WRITE_KEY": "wk", key: "x"})
    assert settings == Settings(WRITE_KEY="wk")
    assert [(problem.key, problem.kind) for problem in found] == [(str(key), "unknown")]
    assert repr(key) in found[0].explanation


@pytest.mark.parametrize("raw", [None, "wk", ["WRITE_KEY"], 5])
def test_settings_that_are_no_dict_are_the_defaults(raw: Any) -> None:
    with override_settings(SEGMENT_FALLBACK=raw):
        assert get_settings() == Settings()
    [problem] = compile_settings(raw)[1]
    assert (problem.key, problem.kind) == ("SEGMENT_FALLBACK", "type")
    assert problem.explanation == f"SEGMENT_FALLBACK must be a dict, not {type(raw).__name__}"


@pytest.mark.parametrize("raw", [{}, {"WRITE_KEY": ""}])
def test_write_key_missing_is_reported_once(raw: dict[str, Any]) -> None:
    assert [(problem.key, problem.kind) for problem in compile_settings(raw)[1]] == [("WRITE_KEY", "missing")]


def test_several_mistakes_are_reported_each() -> None:
    assert problems(GZIP=1, HOLD=-1, NAME=1) == [("GZIP", "type"), ("HOLD", "value"), ("NAME", "unknown")]


def test_rule_of_origin_says_what_to_write() -> None:
    assert "such as 'https://api.segment.io'" in explanation(API_HOST="api.segment.io")


@pytest.mark.parametrize("keys", [{"WRITE_KEY": "a secret"}, {"SOURCES": {"docs": {"WRITE_KEY": "a secret"}}}])
def test_rule_of_write_keys_says_what_to_write_and_shows_none(keys: dict[str, Any]) -> None:
    said = explanation(**keys)
    assert "['WRITE_KEY'] must be ASCII characters without spaces or line breaks" in said
    assert "secret" not in said


def test_longest_lease_of_a_flush_is_no_wrong_clocks() -> None:
    longest = max(seconds for seconds in range(1, 3_600) if RULES["SEND_TIMEOUT"](seconds) is None)
    assert 4 * longest < FAR_AHEAD


def test_every_key_is_explained_in_the_source() -> None:
    [cls] = [
        node
        for node in ast.parse(Path(conf.__file__).read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == "Settings"
    ]
    explained = {
        entry.target.id: after.value.value
        for entry, after in zip(cls.body, cls.body[1:], strict=False)
        if isinstance(entry, ast.AnnAssign)
        and isinstance(entry.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
    }
    assert set(explained) == set(KEYS)
    assert all(str(text).strip().endswith(".") for text in explained.values())
