"""What became of a hit: accepted, or refused for a reason from one list.

Each reason is the same word in counters, logs, the header under ``DEBUG``, and the documentation.
"""

from __future__ import annotations

import enum


class Outcome(str, enum.Enum):
    """Every way in which a hit can end. The value is the word; ``explanation`` says what it means."""

    explanation: str

    def __new__(cls, word: str, explanation: str) -> Outcome:
        member = str.__new__(cls, word)
        member._value_ = word
        member.explanation = explanation
        return member

    ACCEPTED = "accepted", "The event is in the buffer; with COLLECT 'forward', at Segment."
    METHOD = (
        "method",
        "The pixel takes GET, and POST by a beacon (HEAD is answered, and not counted as a page view); every other "
        "endpoint takes POST.",
    )
    SIZE = "size", "The URL, the body or the event is larger than allowed."
    CONTENT_TYPE = (
        "content_type",
        "The body is neither application/json nor text/plain, or packed in another way than by gzip.",
    )
    MALFORMED = (
        "malformed",
        "The URL or the body does not hold what the page's script, or Segment's libraries and webhook, write.",
    )
    INVALID = "invalid", "Segment would drop the event: unknown type, no event name, a field of a wrong type."
    WRITE_KEY = (
        "write_key",
        "No source has this key; or it is a page's public key, and no browser sent it from a page.",
    )
    IDENTITY = (
        "identity",
        "A page wants to merge people (alias) whom Django's auth does not know; TRUST_CLIENT_USER_ID lets it.",
    )
    NO_ID = (
        "no_id",
        "Server code named no userId and no anonymousId, and the visitor has none: not signed in, no cookie yet.",
    )
    HOST = "host", "The request, or the page that it names, belongs to a host that is not allowed."
    CROSS_SITE = (
        "cross_site",
        "The browser says (Sec-Fetch-Site) that the request does not come from a page of this site.",
    )
    TOKEN_MISSING = (
        "token_missing",
        "The page's token did not come along: no cookie. The visitor may refuse cookies.",
    )
    TOKEN_INVALID = (
        "token_invalid",
        "The token was not signed by this site, or with a SECRET_KEY it no longer knows.",
    )
    TOKEN_EXPIRED = "token_expired", "The page was rendered longer ago than TOKEN_MAX_AGE."
    SIGNATURE = "signature", "The webhook of profiles was not signed with one of PROFILE_SECRETS."
    NOT_A_PROFILE = (
        "not_a_profile",
        "The webhook tells of no audience or computed trait of the space, or of one so long ago (PROFILE_TTL) that it "
        "is not taken.",
    )
    REFERER_MISSING = (
        "referer_missing",
        "No usable Referer, and nothing else that proves where the request comes from.",
    )
    REFERER_MISMATCH = (
        "referer_mismatch",
        "The Referer is another page than the one that the token was made for.",
    )
    RATE = "rate", "More hits from one address or visitor than RATE_LIMIT allows."
    PREFETCH = "prefetch", "The browser fetched ahead; nobody has seen the page yet."
    GPC = "gpc", "The visitor's browser sends Global Privacy Control."
    DNT = "dnt", "The visitor's browser sends Do Not Track."
    CONSENT = "consent", "The visitor has not agreed, or no longer does: the cookie of CONSENT does not say so."
    UNAVAILABLE = (
        "unavailable",
        "Buffer and spool are down, or the store of profiles; the sender is asked, by status 503 or 500, to try again.",
    )
    SPOOL_FULL = "spool_full", "The buffer is down and the spool at its cap; the browser is asked to try again."
    SEGMENT_DOWN = (
        "segment_down",
        "With COLLECT 'forward': Segment fails or is silent, or was a moment ago; the browser is asked, by status 503, "
        "to try again.",
    )
    SEGMENT_BUSY = "segment_busy", "With COLLECT 'forward': Segment says 429; the browser is told when to try again."
    SEGMENT_REFUSED = "segment_refused", "With COLLECT 'forward': Segment does not want this event (400, 413, 422)."
    MISCONFIGURED = (
        "misconfigured",
        "With COLLECT 'forward': Segment takes nothing by this WRITE_KEY, OAUTH or API_HOST; the log says more, and "
        "the browser is asked, by status 503, to try again.",
    )
    PLAN = "plan", "The message violates the tracking plan, and PLAN_BLOCK made it a dead letter."
    FAILED = "failed", "A handler failed EVENT_ATTEMPTS times; `manage.py segment_events --show` has the traceback."
    UNHANDLED = "unhandled", "An event was emitted, and no handler wanted it within an hour."
    DISABLED = (
        "disabled",
        "The source of the page, or of server code's call, has no write key (any more): there is nowhere to report to.",
    )

    @property
    def temporary(self) -> bool:
        """Whether the same hit may be accepted later."""
        return self in _TEMPORARY

    @property
    def refused(self) -> bool:
        return self is not Outcome.ACCEPTED


_TEMPORARY = frozenset(
    {
        Outcome.UNAVAILABLE,
        Outcome.SPOOL_FULL,
        Outcome.SEGMENT_DOWN,
        Outcome.SEGMENT_BUSY,
        Outcome.MISCONFIGURED,
    }
)


class Refused(Exception):
    """Ends the checks of a hit. Caught by the view; never reaches a site's own code."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.value)
        self.outcome = outcome
