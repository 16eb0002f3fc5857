"""The bytes of our snippet, against Segment's own: ``python -m benchmarks.snippet``

Both for the same page call, as ``gzip`` packs them: ours as the tag renders it, without the image for browsers that
run no scripts; Segment's minified one of the npm package ``@segment/snippet``. Needs ``make node_modules/.installed``.
"""

from __future__ import annotations

import argparse
import gzip

from benchmarks.harness import Report, Result, main


def measure(report: Report, arguments: argparse.Namespace) -> None:
    from segment_fallback.page.snippet import render
    from segment_fallback.page.token import Page
    from tests.page.test_script import BUDGET, segments_own

    page = Page("/shop/", "Shop", "Pages", {"price": 9.5})
    theirs = size(f"<script>{segments_own('Shop', 'Pages', {'price': 9.5})}</script>")
    figures = size(render(page, noscript=False)), theirs
    report.add(Result("our snippet, gzipped", "Segment's", *figures, "bytes", BUDGET, at_most=True, difference=True))
    report.note(f"With the image for browsers that run no scripts it has {size(render(page)):,} bytes.")


def size(html: str) -> int:
    """Bytes after gzip."""
    return len(gzip.compress(html.encode(), mtime=0))


if __name__ == "__main__":
    main("snippet", "The bytes of our snippet", measure)
