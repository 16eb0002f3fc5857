"""A worker's app that was never told of our tasks. Imports nothing of ours, or it would know them."""

from __future__ import annotations

import os

from celery import Celery

FOLDER = os.environ["TESTS_BROKER_FOLDER"]
app = Celery("without_tasks", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": FOLDER,
    "data_folder_out": FOLDER,
    "control_folder": f"{FOLDER}/control",
}
