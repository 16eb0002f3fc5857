"""The site's Celery app: two beats make its worker flush, as nobody should run them."""

from __future__ import annotations

from celery import Celery

from segment_fallback.tasks import schedule_flush
from tests.torture.site import DIR

app = Celery("torture", broker=f"sqla+sqlite:///{DIR}/broker.sqlite3", set_as_current=True)
app.conf.update(broker_connection_retry_on_startup=True, worker_hijack_root_logger=False)
schedule_flush(app, every=1)
