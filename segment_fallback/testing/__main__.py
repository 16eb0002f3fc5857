"""`python -m segment_fallback.testing`: run the local Segment until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence

from segment_fallback.testing.receiver import LocalSegment


def main(argv: Sequence[str] | None = None) -> None:
    """Run it, say where it listens, return when told to stop; exit 2 for wrong arguments or a taken port."""
    parser = argparse.ArgumentParser(prog="python -m segment_fallback.testing", description=__doc__)
    parser.add_argument("--port", type=int, default=8001, help="0: a free one (default: 8001)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--analytics-js", metavar="PATH", help="folder of @segment/analytics-next")
    parser.add_argument("--write-key", action="append", help="a key that exists, repeatable (default: any)")
    options = parser.parse_args(argv)

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        segment = LocalSegment(options.port, options.analytics_js, options.write_key, options.host).start()
    except (OSError, OverflowError) as error:
        parser.error(str(error))
    try:
        library = segment.analytics_js or "not found, so the CDN paths answer 404"
        sys.stdout.write(f"Local Segment listens on {segment.url} (analytics.js: {library})\n")
        sys.stdout.flush()
        stop.wait()
    finally:
        segment.stop()


if __name__ == "__main__":
    main()
