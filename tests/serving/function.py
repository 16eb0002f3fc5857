"""A process that lives like a serverless function: takes a messageId a line, and says when it is durable."""

from __future__ import annotations

import sys

import django


def main() -> None:
    django.setup()
    from segment_fallback.buffers.accept import accept, acceptance
    from segment_fallback.message import Message

    for line in sys.stdin:
        accept([Message(line.strip(), b"{}")])
        where = "spooled" if acceptance.spool.files() else "buffered"
        print(where, flush=True)  # noqa: T201 - its answer


if __name__ == "__main__":
    main()
