"""Celery apps of sites, in several states. None is the current one: the other tests have their own."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from segment_fallback.tasks import beat_schedule

FOLDER = os.environ.get("TESTS_BROKER_FOLDER", "")


def app(name: str, broker: str = "memory://", *, schedule: bool = True, **conf: Any) -> Celery:
    made = Celery(name, broker=broker, set_as_current=False)
    made.conf.update(conf)
    if schedule:
        made.conf.beat_schedule = beat_schedule()
    return made


down = app("down", "amqp://user:not-to-be-shown@127.0.0.1:1//")
lonely = app("lonely")
silent = app("silent", worker_enable_remote_control=False)
unscheduled = app("unscheduled", schedule=False, worker_enable_remote_control=False)
own_scheduler = app("own", schedule=False, worker_enable_remote_control=False, beat_scheduler="shop.beat:Scheduler")
nobody = app("default")  # what Celery calls the app that it makes where nobody has made one

# A worker in a process of its own, by a broker that is a folder.
shared = app(
    "shared",
    "filesystem://",
    broker_transport_options={
        "data_folder_in": FOLDER,
        "data_folder_out": FOLDER,
        "control_folder": f"{FOLDER}/control",
    },
)
