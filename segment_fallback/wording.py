"""How people are told of numbers, in commands, logs and the dashboard."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """``1 message``, ``1,234 messages``; ``plural`` where an "s" does not make it."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
