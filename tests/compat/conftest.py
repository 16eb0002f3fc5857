from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from segment_fallback.testing import LocalSegment
from tests.compat.project import Project
from tests.e2e.conftest import chromium

__all__ = ["chromium", "project", "segment"]


@pytest.fixture
def segment() -> Iterator[LocalSegment]:
    with LocalSegment() as segment:
        yield segment


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a project that was migrated."""
    project = Project.start(tmp_path_factory.mktemp("compat") / "project")
    project.manage("migrate", "--verbosity", "0")
    return project.directory / "db.sqlite3"


@pytest.fixture
def project(tmp_path: Path, segment: LocalSegment, database: Path) -> Callable[..., Project]:
    """Makes a project that reports to the local Segment, with the tables of its usual apps."""

    def make(settings: str = "", urls: str = "") -> Project:
        project = Project.start(tmp_path / "project", settings, urls)
        project.environment["SEGMENT"] = segment.url
        shutil.copy(database, project.directory)
        return project

    return make
