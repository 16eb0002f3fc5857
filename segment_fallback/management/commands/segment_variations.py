from __future__ import annotations

import re
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.urls import get_resolver

from segment_fallback.profiles.edge import EDGES
from segment_fallback.profiles.variations import registry


class Command(BaseCommand):
    help = "The variations that are declared, and their cookies; or what an edge has to know of them."

    def add_arguments(self, parser: CommandParser) -> None:
        edges = parser.add_mutually_exclusive_group()
        for edge in EDGES:
            edges.add_argument(f"--{edge}", action="store_const", const=edge, dest="edge", help=f"for {edge}'s set-up")
        parser.add_argument("--only", default="", metavar="REGEX", help="of the paths that vary; by default every page")

    def handle(self, *args: Any, **options: Any) -> None:
        _ = get_resolver().url_patterns  # decorated views are known once they are imported
        experiments = registry.all()
        if options["edge"] is None:
            for experiment in experiments:
                self.stdout.write(f"{experiment.id}: {', '.join(experiment.names)}; cookie {experiment.cookie}")
            if not experiments:
                self.stdout.write("No page has variations: declare some in an app's segment_variations.py.")
            return
        try:
            re.compile(options["only"])
            self.stdout.write(EDGES[options["edge"]](experiments, options["only"]))
        except (re.error, ValueError) as error:
            raise CommandError(f"--only {options['only']!r}: {error}") from error
