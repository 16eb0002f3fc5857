"""The fields of our log records, for logs that machines read.

Every record of the logger ``segment_fallback`` has one attribute more, ``segment``: a dict whose ``event`` is one of
the words that docs/how-to/monitoring.md lists. Numbers, reasons and our own names only: never a payload, never a key.
"""

from __future__ import annotations

from collections.abc import Mapping

from django.http import HttpResponse


def log_fields(event: str, **fields: str | float) -> dict[str, Mapping[str, str | float]]:
    """What a logger's call takes as ``extra``. One key, so that no field meets one of LogRecord's own, or a site's."""
    return {"segment": {"event": event, **fields}}


def spare_admins(response: HttpResponse) -> None:
    """Django logs every 5xx as an error, with its URL, and mails it to ADMINS. What failed is in our log already, and
    visitors' hits may meet it by the thousand."""
    if response.status_code >= 500:
        setattr(response, "_has_been_logged", True)  # noqa: B010 - Django's own mark
