"""Every setting of the app: its name, type, default and meaning.

All of them live in one dict, ``SEGMENT_FALLBACK``, in Django's settings. They are read live, so that
``override_settings`` works, and compiled once for each such dict, so that a request pays nothing.
A key that is wrong falls back to its default in a visitor's request (CONSENT to nobody's consent);
``manage.py check`` says what is wrong.
"""

from __future__ import annotations

import contextlib
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal
from urllib.parse import urlsplit

from django.conf import settings as django_settings

DAY = 86_400


def _default_buffers() -> dict[str, dict[str, Any]]:
    return {"default": {"BACKEND": "segment_fallback.buffers.database.DatabaseBuffer"}}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The compiled settings. Attribute names are the keys of ``SEGMENT_FALLBACK``."""

    WRITE_KEY: str = ""
    """The write key of the Segment source that pages report to. The one setting without a useful default."""

    API_HOST: str = "https://api.segment.io"
    """Origin of Segment's Tracking API. EU workspaces: ``https://events.eu1.segmentapis.com``."""

    CDN_HOST: str = "https://cdn.segment.com"
    """Origin from which pages load analytics.js."""

    OAUTH: Mapping[str, Any] = field(default_factory=dict)
    """For sources that require OAuth: the arguments of segment-analytics-python's ``OauthManager``
    (``client_id``, ``client_key``, ``key_id``, and perhaps ``auth_server`` and ``scope``)."""

    SOURCES: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Further sources, by alias: ``{"docs": {"WRITE_KEY": "…"}}``, and perhaps ``API_HOST`` and ``OAUTH``. A page
    reports to one by ``{% segment_snippet source="docs" %}``."""

    BUFFERS: Mapping[str, Mapping[str, Any]] = field(default_factory=_default_buffers)
    """Where messages wait, by alias: ``{"default": {"BACKEND": dotted path, "OPTIONS": {…}}}``.
    New messages go to ``default``; a flush empties every alias, so that a site can move from one to another."""

    SPOOL: str | None = None
    """Where messages go while the buffer is down: an alias of Django's ``STORAGES``. By default a folder
    ``segment-spool`` in ``BASE_DIR``. On several machines, or without a disk, choose one that all of them share."""

    SPOOL_MAX_BYTES: int = 100_000_000
    """How large the spool may grow. Past that hits are refused, and their browsers keep them."""

    ARCHIVE: str | bool = False
    """Where a copy of all that was delivered is kept: an alias of Django's ``STORAGES``, or True for a folder
    ``segment-archive`` in ``BASE_DIR``. Off by default: it is a store of personal data, and it grows."""

    ARCHIVE_DAYS: int = 400
    """Days after which a flush deletes files of the archive: a year, and a month to compare it with. 0 keeps them
    for ever."""

    ENDPOINT_NAME: str | None = None
    """Path segment below the mount. By default six characters derived from ``SECRET_KEY``, so that no blockers'
    list can name it for every site."""

    ALLOWED_HOSTS: tuple[str, ...] | None = None
    """Hosts whose pages may report, in the form of Django's setting of the same name, which is the default."""

    STRICT_REFERER: bool = False
    """Refuse a pixel whose Referer is missing or trimmed. By default it is accepted from a browser that says
    ``Sec-Fetch-Site: same-origin`` and sends the page's cookie."""

    TOKEN_MAX_AGE: int = 366 * DAY
    """Seconds for which a rendered page may report: longer than caches keep a page, which is a year at most."""

    TRUSTED_PROXIES: int = 0
    """How many proxies of yours append to ``X-Forwarded-For``. With 0 the header is not believed."""

    RATE_LIMIT: int = 1_200
    """Page views a minute that one process takes from one public address; from one visitor a tenth of it.
    0 switches it off."""

    COOKIE_DOMAIN: str | None = None
    """Domain of the anonymousId's cookies. Best the registrable domain (``example.com`` for ``www.example.com``), as
    analytics.js has it. By default the cookies belong to the page's host only."""

    COOKIELESS: bool = False
    """Set no cookie for the anonymousId, nor read one, and let analytics.js keep nothing in the browser. The
    anonymousId is then a hash of address and browser that changes each day. Needs FIRST_PARTY to hold for events by
    analytics.js, too."""

    RESET_AT_LOGOUT: bool = False
    """Whoever uses the browser after a logout gets another anonymousId."""

    INJECT: bool = False
    """Let the middleware add the snippet to every HTML page that has none, before ``</head>``; for sites that cannot
    touch their templates. Not to the admin's pages, nor to what ``without_snippet`` decorates."""

    USER_ID: str | None = None
    """Dotted path to ``function(user) -> str``: the userId of a signed-in user. By default the primary key."""

    RAISE_ERRORS: bool = False
    """Let calls of server code (``track`` …) raise what is wrong with them: for development and tests. By default it
    is counted and logged, and the call returns False."""

    ON_COMMIT: bool = False
    """Calls of server code inside a transaction count only if it commits. A call's own ``on_commit=`` goes before."""

    CAPTURE_SDK: bool = True
    """Calls of segment-analytics-python with a write key of ours wait in our buffer, instead of in a queue that ends
    with the process."""

    AUTH_EVENTS: bool = False
    """Say ``identify`` at each login, and ``alias`` at a login in the request that created the user. Needs the
    middleware."""

    TRAITS: str | None = None
    """Dotted path to ``function(user) -> dict``: the traits that AUTH_EVENTS tells of a user. By default none."""

    EVENT_ATTEMPTS: int = 10
    """How often a handler of an event is tried, ever more slowly, before the event is kept as failed."""

    PLAN_BLOCK: bool = False
    """Whether an event that violates the tracking plan becomes a dead letter instead of being sent."""

    LOAD_OPTIONS: Mapping[str, Any] = field(default_factory=dict)
    """Options of ``analytics.load`` in the page, beside ours: no ids from links (``useQueryString: false``), and
    ``apiHost`` where ``API_HOST`` is not Segment's own."""

    HONOUR_GPC: bool = True
    """Neither load nor send anything for visitors whose browser sends Global Privacy Control."""

    HONOUR_DNT: bool = True
    """The same for Do Not Track."""

    CONSENT: Mapping[str, Any] = field(default_factory=dict)
    """Ask first: neither load nor send anything before the visitor agrees, nor after they take it back. A cookie says
    so: ``{"COOKIE": name, "VALUE": text}``, or ``"CONTAINS"`` for a part of its value, or neither for any value; or
    the page's own code: ``{"CALLBACK": True}``, see ``segmentFallback.consent()``."""

    AUTOLOAD: bool = True
    """Whether the snippet calls ``analytics.load`` itself. With False the page's own code does, as Segment's consent
    wrappers want it; nothing is loaded, sent or reported before."""

    NAVIGATION: str = ""
    """Count the views of pages that navigate without a page load: ``"auto"`` finds them by itself (htmx, Turbo,
    ``history.pushState``), ``"manual"`` leaves it to ``segmentFallback.page()``. By default neither."""

    IDENTIFY: bool = False
    """Tell analytics.js who is signed in: at login visitors get a cookie that is only a hint; where it is set, the
    page asks an uncached endpoint for the userId, once a login, and calls ``identify``."""

    VARIATIONS: str = ""
    """How a page's variation is decided: ``"visitor"``, by the visitor's profile in each request, with ``Vary: Cookie``
    in the answer; or ``"edge"``, by a signed cookie alone, of which an edge in front keeps a copy each. By default
    everybody gets the default."""

    CLIENT_SIDE_TRAITS: tuple[str, ...] = ()
    """The names of those traits of a visitor's profile that his own page may know: an uncached endpoint hands them to
    analytics.js. Pages' scripts, and whoever sits at the browser, can read them."""

    EXTERNAL_SCRIPT: bool = False
    """Load the page's script from a URL of ours instead of writing it into the page: for policies that allow no
    inline code, and so that pages share it."""

    PATIENCE: float = 5.0
    """Seconds after which a page that has heard nothing from analytics.js reports by the pixel."""

    FIRST_PARTY: bool = False
    """Serve analytics.js, its settings and Segment's Tracking API from the site's own host, below the mount: no
    page asks a host that blockers know, and no page names the write key."""

    COLLECT: str = "buffer"
    """Where the events go that browsers and Segment's libraries report to this site: ``"buffer"``, or ``"forward"``:
    straight on to Segment, for sites without a flush. The answer is then Segment's; messages of server code wait in the
    buffer all the same."""

    EAGER: bool = False
    """Report each view by the pixel as soon as the page's script starts, too, so that visits of a tenth of a second
    count. The view's own event takes its place. Needs FIRST_PARTY."""

    HOLD: float | None = None
    """Seconds that a pixel's event waits, so that the same view's JavaScript event can take its place. Of use only
    with FIRST_PARTY, where the default is 45; else it is 0. An hour at most."""

    SELF_HOSTED: str | None = None
    """Folder from which FIRST_PARTY serves analytics.js instead of asking CDN_HOST: ``standalone.js`` and the bundles
    of the npm package ``@segment/analytics-next`` (its ``dist/umd``), and perhaps the source's ``settings.json``."""

    CDN_CACHE: str = "default"
    """Alias of Django's ``CACHES`` where FIRST_PARTY keeps what it has fetched from CDN_HOST. Best one that all
    processes share."""

    TRUST_CLIENT_USER_ID: bool = False
    """Believe the userId that a page's own code names in identify and alias, where nobody is signed in. Anybody can
    send what a page can: with True a stranger may write events, and merge profiles, under any userId he guesses.
    By default a browser's userId is that of Django's auth, or none."""

    PROFILES: Mapping[str, Any] = field(default_factory=dict)
    """Where what Segment knows of visitors is kept close to the site: ``{"BACKEND": dotted path, "OPTIONS": {…}}``,
    see docs/profiles.md. By default nowhere."""

    PROFILE_TTL: float = 365 * DAY
    """Seconds for which a profile is kept after its last change. Segment tells of an audience only when somebody
    enters or leaves it, so that a short time makes members strangers."""

    PROFILE_SECRETS: tuple[str, ...] = field(default=(), repr=False)
    """The shared secret of the webhook by which Segment tells of profiles, or two of them while one is replaced by
    another. Without any the webhook takes nothing."""

    PROFILE_API: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Ask Segment's Profile API for a signed-in user of whom the store has nothing: ``{"SPACE": id, "TOKEN": token}``,
    and perhaps ``HOST``, ``TIMEOUT`` (seconds that a page waits, 0.05), ``RATE`` (requests a second by each process,
    10) and ``REFRESH`` (seconds after which it is asked again, 3600)."""

    FLUSH_BUDGET: float = 8.0
    """Seconds after which a flush starts no further batch: a little less than the interval at which beat starts one.
    With SEND_TIMEOUT it bounds how long a worker takes to end."""

    SEND_TIMEOUT: float = 15.0
    """Seconds to wait for Segment to accept a connection, and again for each part of its answer."""

    RESEND_STALE: bool = False
    """Whether to send again what may have been delivered so long ago (23 hours) that Segment, which forgets
    messageIds after about a day, could count it twice. If not, it becomes a dead letter, and somebody decides."""

    GZIP: bool = False
    """Compress batches on their way to Segment."""

    OUTCOME_INTERVAL: float = 1.0
    """Seconds for which a process adds up outcomes of hits before it writes the counts. 0 writes each at once."""

    HEALTH_MAX_AGE: float = 600.0
    """Seconds after which a message that still waits means trouble to health checks and the dashboard."""

    HEALTH_MAX_SILENCE: float = 300.0
    """Seconds without a flush after which beat, or whatever starts flushes, counts as dead."""

    LAST_EVENTS: bool | None = None
    """Whether the dashboard shows the last 50 events that were accepted: their keys, with every value masked. Kept in
    Django's cache ``default`` for a day. By default only under ``DEBUG``."""

    @property
    def hold(self) -> float:
        """HOLD, or its default."""
        if self.HOLD is None:
            return 45.0 if self.FIRST_PARTY else 0.0
        return self.HOLD

    @property
    def varies(self) -> bool:
        """Whether pages ask for variations and traits of their visitor."""
        return bool(self.VARIATIONS or self.CLIENT_SIDE_TRAITS)

    @property
    def last_events(self) -> bool:
        """LAST_EVENTS, or its default."""
        return bool(django_settings.DEBUG) if self.LAST_EVENTS is None else self.LAST_EVENTS


@dataclass(frozen=True)
class Source:
    """Where a message goes: a write key, the API that knows it, and how to prove that it is ours."""

    alias: str
    write_key: str
    api_host: str
    oauth: Mapping[str, Any] = field(default_factory=dict, repr=False)


DEFAULT_SOURCE = "default"


def get_source(alias: str = DEFAULT_SOURCE) -> Source | None:
    """The source of that alias; None where there is none, or no write key."""
    settings = get_settings()
    own: Mapping[str, Any] = {"WRITE_KEY": settings.WRITE_KEY, "OAUTH": settings.OAUTH}
    if alias != DEFAULT_SOURCE:
        own = settings.SOURCES.get(alias, {})
    if not own.get("WRITE_KEY"):
        return None
    return Source(alias, own["WRITE_KEY"], own.get("API_HOST", settings.API_HOST).rstrip("/"), own.get("OAUTH", {}))


Rule = Callable[[Any], str | None]


def _origin(value: str) -> str | None:
    # A port or an IPv6 address that is none raises ValueError.
    with contextlib.suppress(ValueError):
        if re.fullmatch(r"https?://[^\s/?#@\\]+/?", value) and urlsplit(value).port != 0:
            return None
    return "must be an origin: scheme and host, without a path, such as 'https://api.segment.io'"


def _not_negative(value: float) -> str | None:
    return None if 0 <= value < math.inf else "must be 0 or more, and finite"


def _up_to_an_hour(value: float) -> str | None:
    return None if 0 <= value <= 3_600 else "must be from 0 to 3,600 seconds"


def _positive(value: float) -> str | None:
    return None if 0 < value < math.inf else "must be more than 0, and finite"


def _name(value: str) -> str | None:
    if value and len(value) <= 40 and all(c.isascii() and (c.isalnum() or c in "_-") for c in value):
        return None
    return "must be 1 to 40 ASCII letters, digits, '-' or '_'"


def _buffers(value: Mapping[str, Any]) -> str | None:
    if "default" not in value:
        return "must have the alias 'default'"
    for alias, config in value.items():
        if not isinstance(config, Mapping) or not isinstance(config.get("BACKEND"), str):
            return f"[{alias!r}] must be a dict with the key 'BACKEND', a dotted path"
        if unknown := sorted(set(config) - {"BACKEND", "OPTIONS"}, key=str):
            return f"[{alias!r}] has the unknown key {unknown[0]!r}: write 'BACKEND' and 'OPTIONS'"
        if not isinstance(config.get("OPTIONS", {}), Mapping):
            return f"[{alias!r}]['OPTIONS'] must be a dict"
    return None


OAUTH_ARGUMENTS = {"client_id", "client_key", "key_id"}


def _oauth(value: Mapping[str, Any]) -> str | None:
    if unknown := sorted(set(value) - OAUTH_ARGUMENTS - {"auth_server", "scope", "timeout", "max_retries"}, key=str):
        return f"has the unknown key {unknown[0]!r}"
    if value and (missing := sorted(OAUTH_ARGUMENTS - set(value))):
        return f"needs the key {missing[0]!r}"
    return None


def _sources(value: Mapping[str, Any]) -> str | None:
    for alias, source in value.items():
        if alias == DEFAULT_SOURCE or alias != str(alias) or len(alias) > 40:
            return f"has the alias {alias!r}: it must be a text of at most 40 characters, and not 'default'"
        if not isinstance(source, Mapping) or not isinstance(source.get("WRITE_KEY"), str):
            return f"[{alias!r}] must be a dict with the key 'WRITE_KEY'"
        if unknown := sorted(set(source) - {"WRITE_KEY", "API_HOST", "OAUTH"}, key=str):
            return f"[{alias!r}] has the unknown key {unknown[0]!r}"
        host, oauth = source.get("API_HOST", "https://host"), source.get("OAUTH", {})
        if not isinstance(host, str) or not isinstance(oauth, Mapping):
            return f"[{alias!r}]: 'API_HOST' must be a string, and 'OAUTH' a dict"
        if fault := _origin(host) or _oauth(oauth):
            return f"[{alias!r}]: {fault}"
    return None


def _consent(value: Mapping[str, Any]) -> str | None:
    if unknown := sorted(set(value) - {"COOKIE", "VALUE", "CONTAINS", "CALLBACK"}, key=str):
        return f"has the unknown key {unknown[0]!r}: write 'COOKIE' with 'VALUE' or 'CONTAINS', or 'CALLBACK'"
    if not value or value == {"CALLBACK": True}:
        return None
    if "CALLBACK" in value or {"VALUE", "CONTAINS"} <= set(value):
        return "must name one way: 'COOKIE' alone, with 'VALUE' or with 'CONTAINS', or 'CALLBACK': True"
    if not all(isinstance(text, str) and text for text in value.values()):
        return "must have texts as its values, none of them empty"
    if not re.fullmatch(r"[!#$%&'*+.^_`|~\w-]+", value.get("COOKIE", ""), re.ASCII):
        return "needs the key 'COOKIE', the name of a cookie"
    return None


def _profiles(value: Mapping[str, Any]) -> str | None:
    if value and not isinstance(value.get("BACKEND"), str):
        return "must be a dict with the key 'BACKEND', a dotted path"
    if unknown := sorted(set(value) - {"BACKEND", "OPTIONS"}, key=str):
        return f"has the unknown key {unknown[0]!r}: write 'BACKEND' and 'OPTIONS'"
    return None if isinstance(value.get("OPTIONS", {}), Mapping) else "['OPTIONS'] must be a dict"


def _secrets(value: tuple[str, ...]) -> str | None:
    return None if all(len(secret) >= 8 for secret in value) else "must have secrets of at least 8 characters"


PROFILE_API_NUMBERS = {"TIMEOUT": 0.05, "RATE": 10.0, "REFRESH": 3_600.0}


def _profile_api(value: Mapping[str, Any]) -> str | None:
    if unknown := sorted(set(value) - {"SPACE", "TOKEN", "HOST", *PROFILE_API_NUMBERS}, key=str):
        return f"has the unknown key {unknown[0]!r}"
    texts = [value.get(key) for key in ("SPACE", "TOKEN")]
    if value and not all(isinstance(text, str) and text.isascii() and text.isprintable() and text for text in texts):
        return "needs the keys 'SPACE' and 'TOKEN', texts of ASCII characters"
    host = value.get("HOST", "https://host")
    if not isinstance(host, str) or (fault := _origin(host)):
        return f"['HOST'] {fault if isinstance(host, str) else 'must be a string'}"
    for key in PROFILE_API_NUMBERS:
        if not _fits(number := value.get(key, 1), float) or not 0 < number < math.inf:
            return f"[{key!r}] must be a number, more than 0 and finite"
    return None


def _navigation(value: str) -> str | None:
    return None if value in ("", "auto", "manual") else "must be 'auto', 'manual' or ''"


def _days(value: float) -> str | None:
    return None if 0 <= value <= 36_500 else "must be from 0 to 36,500 days"


def _archive(value: str | bool) -> str | None:
    return "must be an alias of STORAGES, True or False" if value == "" else None


def _collect(value: str) -> str | None:
    return None if value in ("buffer", "forward") else "must be 'buffer' or 'forward'"


def _variations(value: str) -> str | None:
    return None if value in ("", "visitor", "edge") else "must be 'visitor', 'edge' or ''"


RULES: dict[str, Rule] = {
    "OAUTH": _oauth,
    "SOURCES": _sources,
    "API_HOST": _origin,
    "CDN_HOST": _origin,
    "BUFFERS": _buffers,
    "ENDPOINT_NAME": _name,
    "SPOOL_MAX_BYTES": _not_negative,
    "ARCHIVE": _archive,
    "ARCHIVE_DAYS": _days,
    "TOKEN_MAX_AGE": _positive,
    "TRUSTED_PROXIES": _not_negative,
    "RATE_LIMIT": _not_negative,
    "EVENT_ATTEMPTS": _positive,
    "CONSENT": _consent,
    "NAVIGATION": _navigation,
    "COLLECT": _collect,
    "VARIATIONS": _variations,
    "PATIENCE": _positive,
    "PROFILES": _profiles,
    "PROFILE_TTL": _positive,
    "PROFILE_SECRETS": _secrets,
    "PROFILE_API": _profile_api,
    "HOLD": _up_to_an_hour,
    "FLUSH_BUDGET": _positive,
    "HEALTH_MAX_AGE": _positive,
    "HEALTH_MAX_SILENCE": _positive,
    "SEND_TIMEOUT": _positive,
    "OUTCOME_INTERVAL": _not_negative,
}

INSTEAD: dict[str, Any] = {"CONSENT": {"CALLBACK": True}}
"""What stands for a key that is wrong, where the default would not do: whoever asks for consent, and mistypes how,
must not go on without."""

KEYS = tuple(f.name for f in fields(Settings))
_TYPES = {key: hint for key, hint in typing.get_type_hints(Settings).items() if key in KEYS}


@dataclass(frozen=True)
class Problem:
    """What is wrong with one key. ``kind``: ``missing``, ``unknown``, ``type`` or ``value``."""

    key: str
    kind: Literal["missing", "unknown", "type", "value"]
    explanation: str


def compile_settings(raw: object) -> tuple[Settings, list[Problem]]:
    """Settings from the dict a site wrote, and what is wrong with it. A wrong key keeps its default, or INSTEAD."""
    problems: list[Problem] = []
    if not isinstance(raw, Mapping):
        explanation = f"SEGMENT_FALLBACK must be a dict, not {type(raw).__name__}"
        return Settings(), [Problem("SEGMENT_FALLBACK", "type", explanation)]
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in KEYS:
            problems.append(Problem(str(key), "unknown", f"SEGMENT_FALLBACK has no key {key!r}"))
            continue
        coerced = tuple(value) if isinstance(value, list) else value
        if not _fits(coerced, _TYPES[key]):
            wanted = _describe(_TYPES[key])
            explanation = f"SEGMENT_FALLBACK[{key!r}] must be {wanted}, not {type(value).__name__}"
            problems.append(Problem(key, "type", explanation))
        elif coerced is not None and key in RULES and (fault := RULES[key](coerced)):
            problems.append(Problem(key, "value", f"SEGMENT_FALLBACK[{key!r}] {fault}"))
        else:
            values[key] = coerced
    values.update((problem.key, INSTEAD[problem.key]) for problem in problems if problem.key in INSTEAD)
    if raw.get("WRITE_KEY", "") == "":
        problems.append(Problem("WRITE_KEY", "missing", "SEGMENT_FALLBACK['WRITE_KEY'] is not set"))
    return Settings(**values), problems


def _fits(value: object, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if origin is tuple:
        return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    if origin is not None:
        return isinstance(value, origin)
    if hint in (int, float) and isinstance(value, bool):
        return False
    if hint is float:
        return isinstance(value, (int, float))
    return isinstance(value, hint)


def _describe(hint: Any) -> str:
    words = {str: "a string", int: "a whole number", float: "a number", bool: "True or False"}
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_describe(option) for option in typing.get_args(hint))
    if hint is type(None):
        return "None"
    if origin is tuple:
        return "a list of strings"
    return words.get(hint, "a dict")


def default_of(key: str) -> object:
    """The default of one key, for the documentation and its test."""
    entry = next(f for f in fields(Settings) if f.name == key)
    return entry.default if entry.default is not MISSING else typing.cast(Any, entry.default_factory)()


class _Cache:
    raw: object = None
    compiled: Settings = Settings()


def get_settings() -> Settings:
    """The settings in force now. Compiled anew whenever ``SEGMENT_FALLBACK`` is another object than before."""
    raw = getattr(django_settings, "SEGMENT_FALLBACK", None)
    if raw is not _Cache.raw:
        _Cache.compiled = compile_settings(raw if raw is not None else {})[0]
        _Cache.raw = raw
    return _Cache.compiled


def is_loud() -> bool:
    """Whether a mistake of whoever calls us is raised, and not just counted: in development, which DEBUG tells."""
    return bool(django_settings.DEBUG or getattr(get_settings(), "RAISE_ERRORS", False))
