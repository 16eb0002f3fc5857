"""``manage.py prepare``: what `manage.py demo` does before it starts the processes, for whoever starts them himself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from example_project.prepare import prepare


class Command(BaseCommand):
    help = "Makes the example's tables, its user of the dashboard and, where it is to have an edge, Varnish's files."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--vcl", type=Path, metavar="FOLDER", help="write shop.vcl and what it includes there")
        parser.add_argument("--origin-port", type=int, default=8002, help="of Django behind Varnish (default: 8002)")

    def handle(self, *args: Any, **options: Any) -> None:
        prepare(options["vcl"], options["origin_port"])
