"""Every setting of the app: its name, type, default and meaning.

All of them live in one dict, ``SEGMENT_FALLBACK``, in Django's settings. They are read live, so that
``override_settings`` works, and compiled once for each such dict, so that a request pays nothing.
A key that is wrong falls back to its default in a visitor's request (CONSENT to nobody's consent);
``manage.py check`` says what is wrong.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal

from django.conf import settings as django_settings

from segment_fallback.conf_rules import RULES, describe, fits

DAY = 86_400

DEFAULT_SOURCE = "default"


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
    """Domain of the anonymousId's cookies: the registrable domain, as analytics.js has it. By default that of a page at
    ``example.com`` or ``www.example.com``; a site at ``shop.example.com`` has to say ``"example.com"``."""

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
    see docs/how-to/profiles.md. By default nowhere."""

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
    """Seconds to wait for Segment to accept a connection, and again for each part of its answer. At most
    600."""

    SENDS_IN_FLIGHT: int = 6
    """How many batches of one part may be on their way to Segment at once. With 1 each waits for the answer to the one
    before."""

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

    @functools.cached_property
    def sources(self) -> Mapping[str, Source]:
        """The sources that have a write key, by alias: SOURCES, and the default one."""
        default: Mapping[str, Any] = {"WRITE_KEY": self.WRITE_KEY, "OAUTH": self.OAUTH}
        return {
            alias: Source(alias, own["WRITE_KEY"], own.get("API_HOST", self.API_HOST).rstrip("/"), own.get("OAUTH", {}))
            for alias, own in {**self.SOURCES, DEFAULT_SOURCE: default}.items()
            if own.get("WRITE_KEY")
        }

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


def get_source(alias: str = DEFAULT_SOURCE) -> Source | None:
    """The source of that alias; None where there is none, or no write key."""
    return get_settings().sources.get(alias)


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
        if not fits(coerced, _TYPES[key]):
            wanted = describe(_TYPES[key])
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


def default_of(key: str) -> object:
    """The default of one key, for the documentation and its test."""
    entry = next(f for f in fields(Settings) if f.name == key)
    return entry.default if entry.default is not MISSING else typing.cast(Any, entry.default_factory)()


class _Cache:
    # One attribute: a thread that compiles what has just changed must not leave its half of two.
    of: tuple[object, Settings] = (None, Settings())


def get_settings() -> Settings:
    """The settings in force now. Compiled anew whenever ``SEGMENT_FALLBACK`` is another object than before."""
    try:
        # Each hit asks several times. What Django's settings have been asked for before, they keep as an attribute of
        # their own, and look for it in Python; this looks for it in C.
        raw = object.__getattribute__(django_settings, "SEGMENT_FALLBACK")
    except AttributeError:
        raw = getattr(django_settings, "SEGMENT_FALLBACK", None)
    compiled_from, compiled = _Cache.of
    if raw is not compiled_from:
        compiled = compile_settings(raw if raw is not None else {})[0]
        _Cache.of = raw, compiled
    return compiled


def is_loud() -> bool:
    """Whether a mistake of whoever calls us is raised, and not just counted: in development, which DEBUG tells."""
    return bool(django_settings.DEBUG or getattr(get_settings(), "RAISE_ERRORS", False))
