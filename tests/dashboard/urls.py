from __future__ import annotations

from tests.dashboard.project import urls

urlpatterns = urls()
