"""Saltglaze, a small shop that tracks its page views with segment_fallback. Start it with ``make demo``."""
