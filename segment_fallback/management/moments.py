"""The moments that people name on a command line: ``24h``, ``7d``, ``2026-11-21``, ``2026-11-21T14:30+01:00``."""

from __future__ import annotations

import argparse
import re
from datetime import datetime, timedelta, timezone

from django.utils.dateparse import parse_date, parse_datetime
from django.utils.timezone import get_default_timezone

UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str) -> datetime:
    """The moment, aware: so long ago, or a date or a time, by default in ``TIME_ZONE``. For argparse's ``type``."""
    try:
        if ago := re.fullmatch(r"(\d{1,6})([mhdw])", text):
            return datetime.now(timezone.utc) - timedelta(**{UNITS[ago[2]]: int(ago[1])})
        named = parse_datetime(text)
        if named is None and (day := parse_date(text)):
            named = datetime(day.year, day.month, day.day)
    except (OverflowError, ValueError):
        named = None
    if named is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no moment: write 24h, 7d, 2026-11-21, 2026-11-21T14:30 or 2026-11-21T14:30+01:00"
        )
    return named if named.tzinfo else named.replace(tzinfo=get_default_timezone())
