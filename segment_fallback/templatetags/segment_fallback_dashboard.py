"""What the dashboard's templates need, and no site's page does."""

from __future__ import annotations

from django import template
from django.utils.formats import number_format

register = template.Library()


@register.filter
def number(value: float, decimals: int = 0) -> str:
    """The number as the reader's language writes it, digits grouped."""
    return number_format(value, decimals, force_grouping=True)
