"""Routers that send everything of ours to one database."""

from __future__ import annotations

from typing import Any


class ToEmpty:
    alias = "empty"

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return self.alias if model._meta.app_label == "segment_fallback" else None

    db_for_read = db_for_write


class ToPostgreSQL(ToEmpty):
    alias = "postgresql"
