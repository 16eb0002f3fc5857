from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import override_settings
from django.urls import clear_url_caches, include, path

import segment_fallback

OURS = "segment_fallback.middleware.SegmentMiddleware"
SECURITY = "django.middleware.security.SecurityMiddleware"
GZIP = "django.middleware.gzip.GZipMiddleware"
SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"


def found(*, deploy: bool = False, **keys: Any) -> list[CheckMessage]:
    """What Django's checks say of these keys of SEGMENT_FALLBACK; only our findings."""
    return found_in(keys, deploy=deploy)


def found_in(keys: dict[str, Any], *, deploy: bool = False) -> list[CheckMessage]:
    with override_settings(SEGMENT_FALLBACK={"WRITE_KEY": "wk", **keys}):
        return ours(deploy=deploy)


def ours(*, deploy: bool = False) -> list[CheckMessage]:
    messages = run_checks(include_deployment_checks=deploy)
    return [message for message in messages if (message.id or "").startswith("segment_fallback.")]


def one(messages: list[CheckMessage], number: str) -> CheckMessage:
    """The only finding, which has this number and says what to do."""
    assert [message.id for message in messages] == [f"segment_fallback.{number}"]
    assert messages[0].hint
    return messages[0]


@pytest.fixture
def urlconf(settings: Any) -> Iterator[ModuleType]:
    """An empty ROOT_URLCONF; the test adds its urlpatterns."""
    module: Any = ModuleType("tests_checks_urlconf")
    module.urlpatterns = []
    sys.modules[module.__name__] = module
    settings.ROOT_URLCONF = module.__name__
    clear_url_caches()
    yield module
    del sys.modules[module.__name__]
    clear_url_caches()


def mount(module: Any, prefix: str) -> None:
    module.urlpatterns = [path(prefix, include("segment_fallback.urls"))]
    clear_url_caches()


def test_clean_set_up_is_silent() -> None:
    assert run_checks() == []
    assert ours(deploy=True) == []


def test_check_command_fails_with_text_hint_and_id() -> None:
    with (
        override_settings(SEGMENT_FALLBACK={"WRITE_KEY": "wk", "PATIENCE": "5"}),
        pytest.raises(SystemCheckError) as caught,
    ):
        call_command("check", stdout=io.StringIO())
    assert (
        "(segment_fallback.E003) SEGMENT_FALLBACK['PATIENCE'] must be a number, not str.\n"
        "\tHINT: Until then its default is used."
    ) in str(caught.value)


@pytest.mark.parametrize("raw", [{}, {"GZIP": True}])
def test_e001_without_write_key(raw: dict[str, Any]) -> None:
    with override_settings(SEGMENT_FALLBACK=raw):
        message = one(ours(), "E001")
    assert message.msg == "SEGMENT_FALLBACK['WRITE_KEY'] is not set."
    assert "write '' to switch tracking off" in str(message.hint)


def test_e001_without_the_setting(settings: Any) -> None:
    del settings.SEGMENT_FALLBACK
    one(ours(), "E001")


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("write_key", "Did you mean 'WRITE_KEY'?"),
        ("BUFFER", "Did you mean 'BUFFERS'?"),
        ("HONOR_GPC", "Did you mean 'HONOUR_GPC'?"),
        ("XYZ", "The keys are WRITE_KEY, API_HOST, "),
    ],
)
def test_e002_names_the_key_that_was_meant(key: str, hint: str) -> None:
    message = one(found_in({key: 1}), "E002")
    assert message.msg == f"SEGMENT_FALLBACK has no key {key!r}."
    assert str(message.hint).startswith(hint)


@pytest.mark.parametrize("key", ["WRITE_KEY", "API_HOST"])
def test_e003_for_a_wrong_type_is_the_only_finding(key: str) -> None:
    message = one(found_in({key: None}), "E003")
    assert message.msg == f"SEGMENT_FALLBACK[{key!r}] must be a string, not NoneType."


@pytest.mark.parametrize(
    ("raw", "hint"),
    [
        ({"WRITE_KEY": None}, "Until then nothing is tracked, "),
        ({"WRITE_KEY": "wk\n"}, "Until then nothing is tracked, "),
        (None, "Until then nothing is tracked."),
        ({"WRITE_KEY": "wk", "CONSENT": {"cookie": "c"}}, "Until then nobody has consented."),
        ({"WRITE_KEY": "wk", "SEND_TIMEOUT": 601}, "Until then its default is used."),
    ],
)
def test_e003_and_e004_say_what_holds_until_then(raw: Any, hint: str) -> None:
    with override_settings(SEGMENT_FALLBACK=raw):
        [message] = ours()
    assert str(message.hint).startswith(hint)


@pytest.mark.parametrize("raw", [None, "wk"])
def test_e003_for_settings_that_are_no_dict(raw: Any) -> None:
    with override_settings(SEGMENT_FALLBACK=raw):
        assert "SEGMENT_FALLBACK must be a dict" in one(ours(), "E003").msg


def test_e004_for_a_wrong_value() -> None:
    message = one(found(API_HOST="api.segment.io"), "E004")
    assert message.msg.startswith("SEGMENT_FALLBACK['API_HOST'] must be an origin")


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"BACKEND": "nowhere.Buffer"}, "cannot import 'nowhere.Buffer'"),
        ({"BACKEND": "Buffer"}, "cannot import 'Buffer'"),
        ({"BACKEND": "segment_fallback.buffers.database.Missing"}, "cannot import"),
        ({"BACKEND": "segment_fallback.message.encode"}, "is not a Buffer"),
        ({"BACKEND": "segment_fallback.message.Message"}, "is not a Buffer"),
        ({"BACKEND": "segment_fallback.buffers.database.DatabaseBuffer", "OPTIONS": {"colour": 1}}, "'colour'"),
        ({"BACKEND": "segment_fallback.buffers.database.DatabaseBuffer", "OPTIONS": {"parts": 0}}, "parts must be"),
    ],
)
def test_e005_for_a_buffer_that_cannot_be_made(config: dict[str, Any], text: str) -> None:
    message = one(found(BUFFERS={"default": config}), "E005")
    assert text in message.msg
    assert "['BUFFERS']['default']" in message.msg
    assert "segment_fallback.buffers.database.DatabaseBuffer" in str(message.hint)


def test_e005_names_the_alias_among_several() -> None:
    good = {"BACKEND": "segment_fallback.buffers.database.DatabaseBuffer"}
    assert "['old']" in one(found(BUFFERS={"default": good, "old": {"BACKEND": "nowhere.Buffer"}}), "E005").msg


def test_e006_where_the_urls_are_not_mounted(urlconf: ModuleType) -> None:
    message = one(ours(), "E006")
    assert message.msg == "The URLs of segment_fallback are not mounted."
    assert "path('s/', include('segment_fallback.urls'))" in str(message.hint)


def test_e006_without_a_root_urlconf(settings: Any) -> None:
    del settings.ROOT_URLCONF
    one(ours(), "E006")


def test_e007_for_a_database_that_does_not_exist() -> None:
    config = {"BACKEND": "segment_fallback.buffers.database.DatabaseBuffer", "OPTIONS": {"using": "events"}}
    message = one(found(BUFFERS={"default": config}), "E007")
    assert "'events'" in message.msg
    assert message.hint == "Write one of default."


@pytest.mark.parametrize("user_id", ["nowhere.user_id", "user_id", "", "tests.settings.SECRET_KEY"])
def test_e008_for_a_user_id_that_is_no_function(user_id: str) -> None:
    message = one(found(USER_ID=user_id), "E008")
    assert message.msg == f"SEGMENT_FALLBACK['USER_ID']: {user_id!r} is not a function."


def test_user_id_that_is_a_function_is_silent() -> None:
    assert found(USER_ID="django.utils.encoding.force_str") == []


def test_w001_where_tracking_is_switched_off() -> None:
    assert "nothing is tracked" in one(found(WRITE_KEY=""), "W001").msg


def test_site_may_have_sources_of_its_own_only() -> None:
    assert found(WRITE_KEY="", SOURCES={"docs": {"WRITE_KEY": "k"}}) == []


@pytest.mark.parametrize(
    ("prefix", "word"),
    [
        ("tracking/", "tracking"),
        ("analytics/", "analytics"),
        ("a/Pixel/", "Pixel"),
        ("my-events/", "events"),
        ("segment/", "segment"),
        ("collect.d/", "collect"),
    ],
)
def test_w002_for_a_mount_that_lists_name(urlconf: ModuleType, prefix: str, word: str) -> None:
    mount(urlconf, prefix)
    message = one(ours(), "W002")
    assert f"has the segment {word!r}" in message.msg
    assert f"'/{prefix}" in message.msg
    assert "ENDPOINT_NAME" in str(message.hint)


def test_w002_for_an_endpoint_name_that_lists_name() -> None:
    assert "'stats'" in one(found(ENDPOINT_NAME="stats"), "W002").msg


@pytest.mark.parametrize("prefix", ["s/", "", "shop/overviews/", "blog/trackside/", "catalogs/", "readings/"])
def test_mount_that_lists_do_not_name_is_silent(urlconf: ModuleType, prefix: str) -> None:
    mount(urlconf, prefix)
    assert ours() == []


def test_w003_for_the_middleware_twice(settings: Any) -> None:
    settings.MIDDLEWARE = [OURS, SECURITY, OURS]
    assert "more than once" in one(ours(), "W003").msg


@pytest.mark.parametrize(("order", "first"), [([SESSIONS, OURS], SESSIONS), ([SECURITY, SESSIONS, OURS], SESSIONS)])
def test_w004_for_the_middleware_after_others(settings: Any, order: list[str], first: str) -> None:
    settings.MIDDLEWARE = order
    message = one(ours(), "W004")
    assert message.msg == f"MIDDLEWARE has {first!r} before SegmentMiddleware."
    assert "to the first place" in str(message.hint)


@pytest.mark.parametrize(
    "order", [[], [OURS], [OURS, SECURITY, SESSIONS], [SECURITY, OURS, SESSIONS], [GZIP, OURS], [SESSIONS]]
)
def test_middleware_first_or_absent_is_silent(settings: Any, order: list[str]) -> None:
    settings.MIDDLEWARE = order
    assert ours() == []


@pytest.mark.parametrize("region", [None, "eu-central-1"])
def test_w006_where_dynamodb_has_no_region(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, region: str | None) -> None:
    for variable in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_DEFAULT_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    if region:
        monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    messages = found(BUFFERS={"default": {"BACKEND": "segment_fallback.buffers.dynamodb.DynamoDBBuffer"}})
    assert messages == [] if region else "region" in one(messages, "W006").msg


@pytest.mark.parametrize(
    ("hosts", "allowed", "silent"),
    [
        (["*"], None, False),
        (["shop.example", "*"], None, False),
        (["shop.example"], ["*"], False),
        (["*"], ["shop.example"], True),
        (["shop.example"], None, True),
    ],
)
def test_w005_where_any_host_may_report(settings: Any, hosts: list[str], allowed: Any, silent: bool) -> None:
    settings.ALLOWED_HOSTS = hosts
    assert found(ALLOWED_HOSTS=allowed) == []  # it belongs to `check --deploy`
    messages = found(deploy=True, ALLOWED_HOSTS=allowed)
    if silent:
        assert messages == []
    else:
        assert "ALLOWED_HOSTS" in str(one(messages, "W005").hint)


PROFILES = "segment_fallback.profiles"
US, EU = "https://api.segment.io", "https://events.eu1.segmentapis.com"


def loading(api_host: object) -> dict[str, Any]:
    return {"integrations": {"Segment.io": {"apiHost": api_host}}}


@pytest.mark.parametrize(
    "keys",
    [
        {"API_HOST": US},
        {"API_HOST": EU},
        {"API_HOST": "https://segment.example.com"},
        {"API_HOST": "https://mysegment.io:8443"},
        {"API_HOST": EU, "LOAD_OPTIONS": loading("events.eu1.segmentapis.com/v1")},
        {"API_HOST": EU, "LOAD_OPTIONS": loading("t.shop.example/v1")},
        {"API_HOST": "https://t.shop.example", "LOAD_OPTIONS": loading("api.segment.io/v1")},
        {"LOAD_OPTIONS": loading(7)},
        {"LOAD_OPTIONS": loading("[")},
        {"LOAD_OPTIONS": {"integrations": False}},
        {"LOAD_OPTIONS": {"integrations": {"Segment.io": True}}},
        {"SOURCES": {"eu": {"WRITE_KEY": "k", "API_HOST": EU}}},
    ],
)
def test_region_that_may_be_meant_is_fine(keys: dict[str, Any]) -> None:
    assert found_in(keys) == []


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"API_HOST": "https://api.segment.com"}, "['API_HOST']: 'api.segment.com' is not"),
        ({"API_HOST": "https://app.segment.com"}, "is not where Segment takes events"),
        ({"API_HOST": "https://cdn.segment.com"}, "is not where"),
        ({"API_HOST": "https://eu1.api.segmentapis.com"}, "is not where"),
        ({"API_HOST": "https://events.eu2.segmentapis.com"}, "is not where"),
        ({"SOURCES": {"b": {"WRITE_KEY": "k", "API_HOST": "https://segment.io"}}}, "['SOURCES']['b']['API_HOST']: "),
        ({"LOAD_OPTIONS": loading("events.eu1.segmentapis.com/v1")}, "than API_HOST, 'api.segment.io'"),
        ({"API_HOST": EU, "LOAD_OPTIONS": loading("api.segment.io/v1")}, "apiHost in LOAD_OPTIONS is 'api.segment.io'"),
    ],
)
def test_wrong_region_is_said(keys: dict[str, Any], text: str) -> None:
    message = one(found_in(keys), "W007")
    assert text in message.msg
    assert US in str(message.hint)
    assert EU in str(message.hint)


@pytest.mark.parametrize("is_there", [False, True])
def test_e009_for_a_folder_without_the_library(tmp_path: Path, is_there: bool) -> None:
    if is_there:
        (tmp_path / "standalone.js").touch()
    messages = found(FIRST_PARTY=True, SELF_HOSTED=str(tmp_path))
    assert messages == [] if is_there else f"{str(tmp_path)!r} has no standalone.js" in one(messages, "E009").msg


def test_e010_for_a_cache_that_is_none() -> None:
    message = one(found(CDN_CACHE="files"), "E010")
    assert "no alias 'files'" in message.msg
    assert "'default'" in str(message.hint)


def test_e011_for_an_archive_that_storages_has_not() -> None:
    message = one(found(ARCHIVE="archive"), "E011")
    assert "no alias 'archive'" in message.msg
    assert "'spool'" in str(message.hint)
    assert found(ARCHIVE="spool") == found(ARCHIVE=True) == found(ARCHIVE=False) == []


def test_e011_for_a_spool_that_storages_has_not() -> None:
    message = one(found(SPOOL="nowhere"), "E011")
    assert message.msg == "SEGMENT_FALLBACK['SPOOL']: STORAGES has no alias 'nowhere'."
    assert found(SPOOL="spool") == found(SPOOL=None) == []


@pytest.mark.parametrize("first_party", [False, True])
def test_w008_for_eager_without_first_party(first_party: bool) -> None:
    messages = found(EAGER=True, FIRST_PARTY=first_party)
    assert messages == [] if first_party else "FIRST_PARTY" in one(messages, "W008").msg


@pytest.mark.parametrize("hold", [0, 14.9, 15, None])
def test_w008_for_eager_whose_pixels_do_not_wait(hold: float | None) -> None:
    messages = found(EAGER=True, FIRST_PARTY=True, HOLD=hold)
    assert "keeps many a view's pixel" in one(messages, "W008").msg if hold in (0, 14.9) else messages == []
    assert found(FIRST_PARTY=True, HOLD=hold) == []


@pytest.mark.parametrize("collect", ["buffer", "forward"])
def test_w012_for_eager_without_a_buffer(collect: str) -> None:
    messages = found(EAGER=True, FIRST_PARTY=True, COLLECT=collect, HOLD=0 if collect == "forward" else None)
    assert messages == [] if collect == "buffer" else "keeps the pixel" in one(messages, "W012").msg


@pytest.mark.parametrize(("collect", "hold"), [("buffer", 30), ("forward", 30), ("forward", 0), ("forward", None)])
def test_w013_for_hold_without_a_buffer(collect: str, hold: float | None) -> None:
    messages = found(FIRST_PARTY=True, COLLECT=collect, HOLD=hold)
    assert "nothing is held" in one(messages, "W013").msg if collect == "forward" and hold else messages == []


@pytest.mark.parametrize("collect", ["buffer", "forward"])
def test_w014_for_an_archive_without_a_buffer(collect: str) -> None:
    messages = found(COLLECT=collect, ARCHIVE=True)
    assert messages == [] if collect == "buffer" else "server code" in one(messages, "W014").msg


@pytest.mark.parametrize(
    ("domain", "hosts", "fault"),
    [
        (None, ["shop.example"], None),
        ("shop.example", ["www.shop.example", "localhost"], None),
        (".Shop.example", ["shop.example"], None),
        ("shop.example", [".shop.example"], None),
        ("shop.example", ["*"], None),
        ("shop.example", [], None),
        ("example", ["shop.example"], "is no domain of yours"),
        ("", ["shop.example"], "is no domain of yours"),
        ("other.example", ["shop.example"], "of none of ALLOWED_HOSTS"),
        ("www.shop.example", ["shop.example"], "of none of ALLOWED_HOSTS"),
        ("shop.example", ["workshop.example"], "of none of ALLOWED_HOSTS"),
    ],
)
def test_w009_for_a_domain_whose_cookies_browsers_refuse(
    settings: Any, domain: str | None, hosts: list[str], fault: str | None
) -> None:
    settings.ALLOWED_HOSTS = hosts
    messages = found(COOKIE_DOMAIN=domain)
    assert messages == [] if fault is None else fault in one(messages, "W009").msg


def test_w009_judges_by_our_own_allowed_hosts_where_they_are_set() -> None:
    assert found(COOKIE_DOMAIN="shop.example", ALLOWED_HOSTS=["www.shop.example"]) == []
    one(found(COOKIE_DOMAIN="shop.example", ALLOWED_HOSTS=["testserver"]), "W009")


@pytest.mark.parametrize(
    ("hosts", "host"),
    [
        (["shop.example", "WWW.shop.example"], None),
        (["www.shop.example", "app.shop.example"], "app.shop.example"),
        (["shop.co.uk", "www.shop.co.uk", "blog.co.uk"], None),
        (["localhost", ".shop.example"], ".shop.example"),
        (["a.shop.example", "b.shop.example"], "a.shop.example"),
        (["shop.example", "a.b.shop.example", "b.shop.example"], "a.b.shop.example"),
        (["shop.example", "blog.example", "www.example", ".localhost", "localhost", "*"], None),
        (["10.0.0.1", "11.0.0.1", "[::1]"], None),
        (["a.shop.example", "b.blog.example"], None),
    ],
)
def test_w019_where_the_domain_has_a_cookie_beside_the_hosts(settings: Any, hosts: list[str], host: str | None) -> None:
    settings.ALLOWED_HOSTS = hosts
    messages = found()
    assert messages == [] if host is None else f"at {host!r} a browser may keep two" in one(messages, "W019").msg
    assert found(ALLOWED_HOSTS=["shop.example"]) == found(COOKIELESS=True, FIRST_PARTY=True) == []


def test_w019_is_settled_by_a_domain(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["app.shop.example", "shop.example"]
    one(found(), "W019")
    assert found(COOKIE_DOMAIN="shop.example") == []


@pytest.mark.parametrize("key", ["FIRST_PARTY", "EXTERNAL_SCRIPT"])
@pytest.mark.parametrize("order", [[SECURITY, SESSIONS], [SESSIONS, OURS], [OURS, SESSIONS], [SECURITY]])
def test_w020_for_sessions_on_public_files(settings: Any, key: str, order: list[str]) -> None:
    settings.MIDDLEWARE = order
    before = found_in({key: True})
    settings.SESSION_SAVE_EVERY_REQUEST = True
    more = [message for message in found_in({key: True}) if message not in before]
    if order in ([OURS, SESSIONS], [SECURITY]):
        assert more == []
    else:
        assert f"SESSION_SAVE_EVERY_REQUEST with {key}: " in one(more, "W020").msg
    assert "W020" not in str(found())


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"FIRST_PARTY": True}, None),
        ({}, "another visitor"),
        ({"IDENTIFY": True}, "another visitor"),
        ({"FIRST_PARTY": True, "IDENTIFY": True}, "no page learns the userId"),
    ],
)
def test_w010_for_cookieless_that_does_less_than_it_seems(keys: dict[str, Any], text: str | None) -> None:
    messages = found(COOKIELESS=True, **keys)
    assert messages == [] if text is None else text in one(messages, "W010").msg


@pytest.mark.parametrize(
    ("key", "value"), [("IDENTIFY", True), ("RESET_AT_LOGOUT", True), ("INJECT", True), ("VARIATIONS", "edge")]
)
def test_w011_where_the_middleware_is_needed_and_missing(settings: Any, key: str, value: Any) -> None:
    keys = {key: value, "PROFILES": {"BACKEND": "segment_fallback.profiles.database.DatabaseProfiles"}}
    assert found_in(keys) == []
    settings.MIDDLEWARE = [SESSIONS]
    message = one(found_in(keys), "W011")
    assert message.msg == f"{key} without SegmentMiddleware: nothing happens."


@pytest.mark.parametrize(
    ("config", "number", "text"),
    [
        ({"BACKEND": "missing.Store"}, "E013", "cannot import 'missing.Store'"),
        ({"BACKEND": "segment_fallback.profiles.Profile"}, "E013", "is not a ProfileStore"),
        ({"BACKEND": f"{PROFILES}.database.DatabaseProfiles", "OPTIONS": {"using": "docs"}}, "E012", "database 'docs'"),
        ({"BACKEND": f"{PROFILES}.cache.CacheProfiles", "OPTIONS": {"alias": "docs"}}, "E014", "the cache 'docs'"),
        ({"BACKEND": f"{PROFILES}.cache.CacheProfiles"}, "W015", "which no two processes share"),
        ({"BACKEND": f"{PROFILES}.database.DatabaseProfiles"}, "", ""),
        ({"BACKEND": f"{PROFILES}.dynamodb.DynamoDBProfiles"}, "", ""),
    ],
)
def test_store_of_profiles_is_checked(config: dict[str, Any], number: str, text: str) -> None:
    messages = found(PROFILES=config)
    assert text in one(messages, number).msg if number else messages == []


@pytest.mark.parametrize("key", ["PROFILE_SECRETS", "PROFILE_API"])
def test_w016_for_profiles_without_a_store(key: str) -> None:
    value: Any = ["the-shared-secret"] if key == "PROFILE_SECRETS" else {"SPACE": "s", "TOKEN": "t"}
    assert one(found(**{key: value}), "W016").msg == f"{key} without PROFILES: nothing happens."


def test_check_ids_are_used_once_and_tested() -> None:
    sources = [file.read_text("utf-8") for file in Path(segment_fallback.__file__).parent.rglob("*.py")]
    used = [number for text in sources for number in re.findall(r"""(?:\{ID\}|segment_fallback\.)([EW]\d{3})""", text)]
    assert len(used) >= 13
    assert sorted(used) == sorted(set(used))
    tests = "".join(file.read_text("utf-8") for file in Path(__file__).parent.rglob("test_*.py"))
    untested = {number for number in used if number not in tests}
    assert not untested, f"no test looks for {untested}"
