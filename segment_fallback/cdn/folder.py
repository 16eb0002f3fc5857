"""SELF_HOSTED: the CDN's files from a folder of the site's own, so that no request leaves the site.

The site fills it from the npm package, in the version that it wants, and with what else it needs:

    cp node_modules/@segment/analytics-next/dist/umd/*.js FOLDER/
    FOLDER/settings.json            perhaps: the source's settings, as the CDN answers them at
                                    /v1/projects/<write key>/settings; without it Segment is the only destination
    FOLDER/settings.<alias>.json    perhaps: the same for a source of SOURCES
    FOLDER/next-integrations/…      perhaps: code of destinations, by its path on the CDN, ``.gz`` files unpacked

A destination that the settings name loads its vendor's own scripts from where it likes: for no request at all, name
none. Browsers without ``Promise`` or ``URL`` (Internet Explorer) get a polyfill from cdnjs by analytics.js itself.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path

from segment_fallback.cdn import rewrite
from segment_fallback.cdn.files import File
from segment_fallback.cdn.store import Entry, make_entry
from segment_fallback.log import log_fields

logger = logging.getLogger("segment_fallback")


def get(folder: str, file: File, place: rewrite.Place) -> Entry:
    """The file, rewritten for that place. Never raises for what the folder holds."""
    for name in (file.local, file.local.removesuffix(".gz")):
        path = Path(folder, name)
        try:
            if path.is_file():
                status = path.stat()
                return _prepared(path, status.st_mtime_ns, status.st_size, file, place)
        except (OSError, ValueError) as error:
            extra = log_fields("self_hosted_failed", file=name, reason=str(error))
            logger.error("%s in SELF_HOSTED cannot be served: %s", name, error, extra=extra)
            return Entry(502)
    return make_entry(rewrite.minimal_settings()) if file.is_settings else Entry(404)


@functools.lru_cache(maxsize=64)
def _prepared(path: Path, changed: int, size: int, file: File, place: rewrite.Place) -> Entry:
    """Made once for each state of the file."""
    return make_entry(rewrite.prepare(file, place, "text/javascript", path.read_bytes()))
