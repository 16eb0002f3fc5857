"""What the endpoints for many events share: each event is judged by itself, and what is good is kept at once.

A request with some bad events is a success: were it refused, its client would send it again, and for ever. Each
bad one is counted with its reason; only where nothing was good is the request refused.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings as django_settings
from django.http import HttpRequest, HttpResponse

from segment_fallback import message, plan
from segment_fallback.conf import Settings, Source
from segment_fallback.exceptions import BufferUnavailable, InvalidMessage, SpoolFull
from segment_fallback.intake import identity, verify
from segment_fallback.intake.incoming import Event, Visitor
from segment_fallback.intake.keep import keep
from segment_fallback.log import log_fields, spare_admins
from segment_fallback.message import Message, Way
from segment_fallback.outcome import Outcome, Refused
from segment_fallback.tally import tally

logger = logging.getLogger("segment_fallback")


@dataclass(frozen=True)
class Load:
    """What a request carries: events as they came, for one source, and how to read one of them."""

    source: Source
    items: Sequence[Any]
    read: Callable[[Any], Event]
    """Raises Refused for an event that is none."""


class Reception:
    """How the events of one request ended."""

    def __init__(self, request: HttpRequest, settings: Settings, way: Way) -> None:
        self.request, self.settings, self.way = request, settings, way
        self.outcomes: Counter[Outcome] = Counter()
        self.retry_after: int | None = None
        """Seconds that Segment asks to wait."""
        self._anonymous_id: str | None = None
        self._minted = False

    @property
    def outcome(self) -> Outcome:
        """That of the request: temporary if any event's is, accepted if any event's is, else the first reason."""
        ended = [*self.outcomes]
        temporary = (outcome for outcome in ended if outcome.temporary)
        return next(temporary, Outcome.ACCEPTED if Outcome.ACCEPTED in ended else ended[0])

    def receive(self, load: Callable[[], Load]) -> None:
        """Keep what is good of what the request carries, and count how each event ended. Never raises."""
        number = 1
        try:
            carried = load()
            number = len(carried.items)
            messages = self._messages(carried)
            if messages:
                kept = keep(messages, self.settings)
                self.outcomes.update(kept.outcomes)
                self.retry_after = kept.retry_after
            outcome = None
        except Refused as refusal:
            outcome = refusal.outcome
        except SpoolFull as error:
            extra = log_fields("unspooled", way=self.way.value, number=number, reason=str(error))
            logger.error("%d events could not be spooled: %s", number, error, extra=extra)
            outcome = Outcome.SPOOL_FULL
        except BufferUnavailable as error:
            extra = log_fields("unbuffered", way=self.way.value, number=number, reason=str(error))
            logger.error("%d events could not be buffered: %s", number, error, extra=extra)
            outcome = Outcome.UNAVAILABLE
        except Exception:  # whatever fails here is ours to log, and a 503 to the client, who keeps the events
            extra = log_fields("hit_failed", way=self.way.value, number=number)
            logger.exception("%d events could not be taken", number, extra=extra)
            outcome = Outcome.UNAVAILABLE
        if outcome:
            self.outcomes[outcome] += number - self.outcomes.total()
        for ended, count in self.outcomes.items():
            tally.add(self.way, ended, count)

    def _messages(self, load: Load) -> list[Message]:
        visitor = None if self.way is Way.SERVER else self._visitor(len(load.items))
        messages = []
        for item in load.items:
            try:
                event = load.read(item)
                if visitor:
                    visitor.own(event)
                encoded = message.encode(event, way=self.way, source=load.source.alias)
                if plan.blocks(event, encoded, by_browser=True):
                    raise Refused(Outcome.PLAN)
            except Refused as refusal:
                self.outcomes[refusal.outcome] += 1
            except InvalidMessage as error:
                self.outcomes[_CODES.get(error.code, Outcome.INVALID)] += 1
            else:
                messages.append(encoded)
                if visitor and not self._anonymous_id:
                    self._anonymous_id = event["anonymousId"]
                    self._minted = self._anonymous_id == visitor.new_anonymous_id
        return messages

    def _visitor(self, events: int) -> Visitor:
        request, settings = self.request, self.settings
        ip = identity.client_ip(request, settings)
        verify.check_rate(ip, identity.visitor_key(request, settings), settings, events)
        return Visitor(
            anonymous_id=identity.anonymous_id(request, settings),
            new_anonymous_id=identity.new_anonymous_id(),
            user_id=identity.user_id(request, settings),
            trusted=settings.TRUST_CLIENT_USER_ID,
            ip=ip,
            user_agent=request.META.get("HTTP_USER_AGENT", "")[:1000],
        )

    def finish(self, response: HttpResponse) -> HttpResponse:
        """The answer, with what every answer has. Under DEBUG it says in a header how the events ended."""
        # With "no-store" Chromium keeps no record of a request whose answer nobody reads (first_party.js looks for it).
        # No cache keeps the answer to a POST that names no lifetime, so that cookies may be in it:
        # https://www.rfc-editor.org/rfc/rfc9110#section-9.3.3
        response["Cache-Control"] = "private, no-cache" if Outcome.ACCEPTED in self.outcomes else "private, no-store"
        response["X-Content-Type-Options"] = "nosniff"
        spare_admins(response)
        if self._anonymous_id and self.outcome is Outcome.ACCEPTED:
            identity.keep_anonymous_id(self.request, response, self._anonymous_id, self.settings, minted=self._minted)
        if django_settings.DEBUG:
            response["X-Segment-Fallback"] = ", ".join(outcome.value for outcome in self.outcomes)
        return response


_CODES = {"size": Outcome.SIZE, "depth": Outcome.MALFORMED}
"""InvalidMessage's codes; the rest breaks a rule of Segment's. On some Pythons deep JSON cannot be read at all."""
