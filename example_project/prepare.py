"""What has to be there before the example's processes start: tables, somebody who may see the dashboard, the edge."""

from __future__ import annotations

from pathlib import Path

from django.contrib.auth.models import User
from django.core.management import call_command

from example_project import edge
from example_project.settings import BUFFER

USER = "demo"
"""Who may see the dashboard: name and password. For your own machine only, as all of the demo is."""


def prepare(vcl: Path | None = None, origin: int = 8002) -> None:
    """Make what is missing. ``vcl``: a folder for Varnish's configuration, which asks Django on the port ``origin``."""
    call_command("migrate", verbosity=0)
    if not User.objects.filter(username=USER).exists():
        User.objects.create_superuser(USER, password=USER)
    if BUFFER == "dynamodb":
        call_command("segment_table", create=True)
    if vcl is not None:
        edge.write_vcl(vcl, origin)
