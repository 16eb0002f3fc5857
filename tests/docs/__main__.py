"""`python -m tests.docs` writes what docs/reference says of the code."""

from __future__ import annotations

import os

import django

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    from tests.docs.reference import write  # it imports models

    write()
