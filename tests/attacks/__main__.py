"""`DJANGO_SETTINGS_MODULE=tests.settings python -m tests.attacks` writes the table of docs/explanation/security.md."""

from __future__ import annotations

import django

django.setup()

from tests.attacks.test_docs import write  # noqa: E402 - it imports models

write()
