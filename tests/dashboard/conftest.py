"""The site of ``project.py``, in this process: its settings in force, and the admin's table made."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.management import call_command
from django.test import Client, override_settings
from pytest_django import DjangoDbBlocker, Settings

from tests.dashboard import fill, project

NAMES = ["INSTALLED_APPS", "MIDDLEWARE", "ROOT_URLCONF", "STATIC_URL", "STORAGES", "TEMPLATES", "TIME_ZONE"]


@pytest.fixture(scope="package")
def admin_tables(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The admin's history, and the permissions that come with the site's apps."""
    with django_db_blocker.unblock(), override_settings(INSTALLED_APPS=project.INSTALLED_APPS):
        call_command("migrate", verbosity=0)
        yield
        call_command("migrate", "admin", "zero", verbosity=0)


@pytest.fixture
def site(settings: Settings, admin_tables: None, db: None) -> None:
    for name in NAMES:
        setattr(settings, name, getattr(project, name))
    settings.SEGMENT_FALLBACK = {**project.SEGMENT_FALLBACK, "OUTCOME_INTERVAL": 0}
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # the others are slow on purpose
    admin.autodiscover()
    cache.clear()
    fill.users()


def signed_in(name: str) -> Client:
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.get(username=name))
    return client


@pytest.fixture
def boss(site: None) -> Client:
    return signed_in("admin")


@pytest.fixture
def viewer(site: None) -> Client:
    return signed_in("viewer")
