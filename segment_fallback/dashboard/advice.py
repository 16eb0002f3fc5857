"""What to do about it: for each reason to refuse a hit, and for each thing that can be wrong."""

from __future__ import annotations

from collections.abc import Iterable

from segment_fallback.message import Way
from segment_fallback.outcome import Outcome
from segment_fallback.status import Ailment

NOTHING = "Nothing: this is as it should be."

OUTCOMES = {
    Outcome.METHOD: "A few are scanners. Many: look in the access log for who asks, and how.",
    Outcome.SIZE: "Send less: shorter properties, or less of them. Behind nginx, see its limits for URL and body, too.",
    Outcome.CONTENT_TYPE: "A few are scanners. Otherwise let the client post JSON, plain or by gzip.",
    Outcome.MALFORMED: "A few are scanners. After an upgrade, pages in caches may have an older script: purge them.",
    Outcome.INVALID: "Look in the page's own code for track without a name, or fields of another type.",
    Outcome.WRITE_KEY: "Compare the client's write key with WRITE_KEY and SOURCES. Server libraries need the source's.",
    Outcome.IDENTITY: "Call alias from server code, where it is known who it is.",
    Outcome.NO_ID: "Give track() and the others a user_id or an anonymous_id, or call them within a visitor's request.",
    Outcome.HOST: "If the host is yours, add it to ALLOWED_HOSTS (Django's, or ours). Otherwise nothing: a stranger.",
    Outcome.CROSS_SITE: "Nothing, unless your pages and these endpoints are on different sites: mount them on one.",
    Outcome.TOKEN_MISSING: "A few are visitors without cookies. Many: a proxy drops cookies; let it pass those of /.",
    Outcome.TOKEN_INVALID: "Keep an old SECRET_KEY in SECRET_KEY_FALLBACKS, and use the same on all machines.",
    Outcome.TOKEN_EXPIRED: "A cache keeps pages for longer than TOKEN_MAX_AGE: purge it.",
    Outcome.SIGNATURE: "A few are scanners. Else compare PROFILE_SECRETS with the webhook's shared secret in Segment.",
    Outcome.NOT_A_PROFILE: "Connect the webhook to the Engage space only, and not to your sources.",
    Outcome.REFERER_MISSING: "Set the page's Referrer-Policy to same-origin or laxer; or STRICT_REFERER to False.",
    Outcome.REFERER_MISMATCH: "A cache or a rewrite serves one page at another path: see docs/how-to/edge-caching.md.",
    Outcome.RATE: "Behind a proxy, set TRUSTED_PROXIES, or all visitors count as one. Otherwise a bot, or RATE_LIMIT.",
    Outcome.PREFETCH: NOTHING,
    Outcome.GPC: NOTHING,
    Outcome.DNT: NOTHING,
    Outcome.CONSENT: "Nothing; if it is all of them, compare CONSENT with the cookie that your banner sets.",
    Outcome.UNAVAILABLE: "Bring the buffer up, and see that the spool's storage can be written.",
    Outcome.SPOOL_FULL: "Bring the buffer up; the next flush empties the spool. SPOOL_MAX_BYTES is its cap.",
    Outcome.SEGMENT_DOWN: "See Segment's status page, and this machine's way out. COLLECT 'buffer' lets them wait.",
    Outcome.SEGMENT_BUSY: "Send less at once, or set COLLECT to 'buffer', which spreads them.",
    Outcome.SEGMENT_REFUSED: "Look in the page's own code for events that are too large, or have no name.",
    Outcome.MISCONFIGURED: "Compare WRITE_KEY, OAUTH and API_HOST with the source in Segment; then run segment_doctor.",
    Outcome.PLAN: "Mend the event or the plan, then replay its dead letter.",
    Outcome.FAILED: "Mend the handler, then retry: manage.py segment_events.",
    Outcome.UNHANDLED: "Write a handler for it in an app's segment_events.py, or do not emit it.",
    Outcome.DISABLED: "Give the source its write key again, or purge the pages that still report to it.",
}

OF_WAYS = {
    Way.SERVER.value: {
        Outcome.MALFORMED: "Where the log has call_refused, nest that call's fields less deeply. Others are scanners.",
        Outcome.DISABLED: "In server code let source= name an alias of SOURCES that has a write key; or set WRITE_KEY.",
    },
    Way.PROFILE.value: {
        Outcome.MALFORMED: "Switch batching off in the settings of Segment's Webhooks destination.",
        Outcome.UNAVAILABLE: "Bring up the store that PROFILES names. Segment tries again for four hours.",
    },
}
"""Where it is another thing for what came by one way."""


def of_outcome(outcome: Outcome, ways: Iterable[str]) -> str:
    """What to do about hits that were refused for that reason and came by these ways; each piece of advice once."""
    return " ".join(dict.fromkeys(OF_WAYS.get(way, {}).get(outcome, OUTCOMES[outcome]) for way in ways))


AILMENTS = {
    Ailment.BUFFER_DOWN: (
        "A buffer does not answer",
        "Bring the database or the table up. Until then messages go to the spool.",
    ),
    Ailment.SPOOL_DOWN: (
        "The spool cannot be used",
        "See that the storage of SPOOL exists, and that every process can write to it.",
    ),
    Ailment.MESSAGE_TOO_OLD: (
        "Messages wait for too long",
        "Flushes fail, or do not keep up: see the last error below. More parts let more flushers work at once.",
    ),
    Ailment.FLUSH_NOT_SEEN: (
        "Nobody flushes",
        "Is Celery's beat alive, and a worker? Try by hand: manage.py segment_flush.",
    ),
    Ailment.DEAD_LETTERS: (
        "New dead letters",
        "See their reasons below; mend the cause, then replay them.",
    ),
}
"""Each one's title, and what to do."""
