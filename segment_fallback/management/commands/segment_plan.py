from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import router

from segment_fallback.buffers.database import DatabaseBuffer
from segment_fallback.exceptions import BufferUnavailable
from segment_fallback.models import SeenEvent
from segment_fallback.plan import plan


class Command(BaseCommand):
    help = "The tracking plan, and what was seen: how often, with how many violations, and what is not declared."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="as JSON, with the JSON Schema of each event")
        parser.add_argument("--forget", action="store_true", help="begin to count anew")

    def handle(self, *args: Any, **options: Any) -> None:
        database = DatabaseBuffer(using=router.db_for_write(SeenEvent))
        rows = SeenEvent.objects.using(database.using)
        try:
            if options["forget"]:
                self.stdout.write(f"{database.run(rows.all().delete)[0]} events forgotten.")
                return
            seen = {row.name: row for row in database.run(lambda: list(rows.order_by("name")))}
        except BufferUnavailable as error:
            raise CommandError(f"{error}.") from error
        if options["json"]:
            fields = ("count", "violations", "last_violation", "last_seen")
            found = {name: {field: getattr(row, field) for field in fields} for name, row in seen.items()}
            undeclared = sorted(set(seen) - set(plan.schemas))
            report = {"plan": plan.schemas, "seen": found, "undeclared": undeclared}
            self.stdout.write(json.dumps(report, indent=2, ensure_ascii=False))
            return
        for name, schema in sorted(plan.schemas.items()):
            row = seen.pop(name, None)
            self.stdout.write(f"{name}: {_seen(row) if row else 'never seen'}")
            required = schema.get("required", ())
            for key, kind in schema.get("properties", {}).items():
                self.stdout.write(f"  {key}: {_kind(kind)}{'' if key in required else ', optional'}")
        for row in seen.values():
            self.stdout.write(f"{row.name}: not declared, {_seen(row)}")


def _seen(row: SeenEvent) -> str:
    text = f"seen: {row.count}"
    return f"{text}, violations: {row.violations}, the last: {row.last_violation}" if row.violations else text


def _kind(schema: Any) -> str:
    if isinstance(schema, bool) or not schema:
        return "anything"
    if "anyOf" in schema:
        return " or ".join(map(_kind, schema["anyOf"]))
    if "enum" in schema:
        return "one of " + ", ".join(map(repr, schema["enum"]))
    kind = schema.get("type", "anything")
    text = kind if isinstance(kind, str) else " or ".join(kind)
    if "items" in schema:
        text += f" of {_kind(schema['items'])}"
    return f"{text} ({schema['format']})" if "format" in schema else text
