"""`manage.py demo --varnish`: a trait is flipped at the local Segment, and the cached page is another one."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from django.core.management.base import CommandError

from example_project import edge
from tests.e2e.conftest import missing
from tests.example.test_demo import ROOT, STARTS, command
from tests.servers import free_port


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its URL, at which Varnish answers."""
    folder = tmp_path_factory.mktemp("var")
    try:
        edge.varnish(folder, "127.0.0.1", 1, 2)
    except CommandError as error:
        missing(str(error))
    port = free_port()
    ports = ("--port", port, "--segment-port", free_port(), "--origin-port", free_port())
    arguments, environment = command(folder, "--varnish", *ports)
    said = folder / "demo.out"
    with said.open("w") as out:
        process = subprocess.Popen(
            arguments, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT, text=True
        )
    try:
        deadline = time.monotonic() + STARTS
        while "Ctrl-C stops everything" not in said.read_text():
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def offers(visitor: requests.Session, shop: str) -> tuple[str, str]:
    """Which offers the visitor sees, and what the cache says."""
    answer = visitor.get(f"{shop}/offers/", timeout=10)
    found = re.search(r'data-variation="(\w*)"', answer.text)
    assert found
    assert not {"Set-Cookie", "Vary"} & set(answer.headers)
    return found[1], answer.headers["X-Cache"]


def flip(visitor: requests.Session, shop: str, audience: str, *, member: bool) -> None:
    form = visitor.get(f"{shop}/audience/", timeout=10)
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form.text)
    assert token
    said = {"csrfmiddlewaretoken": token[1], "audience": audience, "member": "1" if member else "0"}
    answer = visitor.post(f"{shop}/audience/", said, headers={"Origin": shop}, timeout=10)
    assert answer.status_code == 200
    assert "trouble" not in answer.text


def test_page_follows_the_audience_and_stays_in_the_cache(shop: str) -> None:
    first, second, stranger = (requests.Session() for _ in range(3))
    assert offers(first, shop) == ("everybody", "MISS")
    assert offers(first, shop) == ("everybody", "HIT")
    flip(first, shop, "collectors", member=True)
    assert offers(first, shop) == ("collectors", "MISS")
    flip(second, shop, "collectors", member=True)
    assert offers(second, shop) == ("collectors", "HIT"), "of the first visitor's making"
    flip(second, shop, "trade", member=True)
    assert offers(second, shop) == ("trade", "MISS")
    flip(second, shop, "trade", member=False)
    assert offers(second, shop) == ("collectors", "HIT")
    flip(first, shop, "collectors", member=False)
    assert offers(first, shop) == ("everybody", "HIT")
    assert offers(stranger, shop) == ("everybody", "HIT")


def test_switches_still_work_behind_the_cache(shop: str) -> None:
    visitor = requests.Session()
    visitor.cookies.set("demo_switch", "script")
    assert "Content-Security-Policy" in visitor.get(f"{shop}/kiln/", timeout=10).headers
    assert "Content-Security-Policy" not in requests.get(f"{shop}/kiln/", timeout=10).headers


def test_demo_says_what_to_install_where_varnish_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *args, **kwargs: None)
    with pytest.raises(CommandError, match="apt-get install varnish"):
        edge.varnish(tmp_path, "127.0.0.1", 1, 2)
