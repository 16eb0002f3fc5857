"""Twilio Segment for Django sites whose visitors block it."""

__version__ = "0.1.0"

__all__ = ["__version__"]
