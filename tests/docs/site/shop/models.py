from __future__ import annotations

from django.conf import settings
from django.db import models


class Order(models.Model):
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    state = models.CharField(max_length=20, default="open")
    total = models.FloatField(default=12.5)

    def __str__(self) -> str:
        return f"order {self.pk}"
