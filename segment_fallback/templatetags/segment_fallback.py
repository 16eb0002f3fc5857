"""``{% load segment_fallback %}``."""

from __future__ import annotations

from django import template

from segment_fallback.page.tag import segment_snippet, segment_variation

register = template.Library()
register.simple_tag(segment_snippet, takes_context=True)
register.simple_tag(segment_variation, takes_context=True)
