"""The Docker Compose file of the example.

No engine runs here: no image is built or started. The file is held against Compose's own schema and against what it
names, and its commands run here, with its environment, on a Redis, PostgreSQL, DynamoDB Local and Varnish of this
machine.
"""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
import yaml
from django.core.management import get_commands, load_command_class

from tests.conftest import installed
from tests.deploy.templates import DEPLOY, ROOT
from tests.servers import DatabaseServer, free_port, redis
from tests.serving.site import kill, wait_until

FILE = DEPLOY / "compose" / "compose.yaml"
DOCKERFILE = DEPLOY / "compose" / "Dockerfile"
OURS = {"segment", "prepare", "web", "worker", "beat"}
PATIENCE = 60.0


def compose(text: str | None = None) -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load(text or FILE.read_text("utf-8"))
    return parsed


def services() -> dict[str, Any]:
    found: dict[str, Any] = compose()["services"]
    return found


def test_file_is_as_compose_wants_it() -> None:
    program = Path(sys.executable).with_name("check-jsonschema")
    command = [str(program), "--builtin-schema", "vendor.compose-spec", str(FILE)]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert found.returncode == 0, found.stdout


def test_file_has_the_services_of_a_site() -> None:
    assert services().keys() == OURS | {"varnish", "postgresql", "redis", "dynamodb"}


def test_every_variable_is_one_that_something_reads() -> None:
    settings = (ROOT / "example_project" / "settings.py").read_text("utf-8")
    read = set(re.findall(r'"((?:EXAMPLE|AWS)_\w+)"', settings))
    given = {name for name in OURS for name in services()[name].get("environment", {})}
    boto3s = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert given - boto3s - {"DJANGO_SETTINGS_MODULE"} <= read
    # All but those that choose a file where Compose has a server.
    assert read - given == {"EXAMPLE_DATABASE"}


def test_everything_that_is_waited_for_says_when_it_is_ready() -> None:
    for name, service in services().items():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert services()[other]["healthcheck"]["test"][0] == "CMD"
            else:
                assert (name, other) in {(name, "prepare")}


def test_ports_are_for_this_machine_only_and_volumes_and_images_are_named() -> None:
    file = compose()
    for service in file["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        volumes = [volume.partition(":")[0] for volume in service.get("volumes", [])]
        assert set(volumes) <= file["volumes"].keys()
        assert "build" in service or re.search(r":\d", service["image"])


@pytest.mark.parametrize("service", ["prepare", "web"])
def test_commands_of_manage_py_exist(service: str) -> None:
    python, manage, name, *arguments = services()[service]["command"]
    assert (python, manage) == ("python", "manage.py")
    app = "example_project" if name == "prepare" else get_commands()[name]
    assert isinstance(app, str)
    load_command_class(app, name).create_parser("manage.py", name).parse_args(arguments)


def test_image_has_what_the_commands_need() -> None:
    text = DOCKERFILE.read_text("utf-8")
    ignored = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for name in copied.split():
            assert (ROOT / name).exists()
            assert f"!{name}" in ignored
    extras = re.findall(r"'\.\[(.+?)]'", text)[0].split(",")
    pyproject = (ROOT / "pyproject.toml").read_text("utf-8")
    assert all(re.search(rf"^{extra} = \[", pyproject, re.MULTILINE) for extra in extras)
    assert re.search(r"^USER (?!root)\w+$", text, re.MULTILINE)


@pytest.fixture
def shop(tmp_path: Path, postgresql_server: DatabaseServer, dynamodb_local_url: str) -> Iterator[tuple[str, str]]:
    """The URLs of the shop and of the local Segment, with the processes of the file running."""
    postgresql = postgresql_server.settings
    login = f"host=127.0.0.1 port={postgresql['PORT']} user={postgresql['USER']} dbname=postgres"
    with psycopg.connect(login, autocommit=True) as connection:
        connection.execute("CREATE ROLE example SUPERUSER LOGIN")
        connection.execute("CREATE DATABASE example OWNER example")
    ports = {name: str(free_port()) for name in ("8000", "8001", "8002")}
    (tmp_path / "edge").mkdir()
    with ExitStack() as stack:
        instead = {
            "postgresql:5432": f"127.0.0.1:{postgresql['PORT']}",
            "redis:6379": stack.enter_context(installed(redis())),
            "http://dynamodb:8000": dynamodb_local_url,
            "/app/": f"{tmp_path}/",
            "/tmp/varnish": f"{tmp_path}/varnish",  # noqa: S108 - as the file has it
            **ports,
        }
        text = FILE.read_text("utf-8")
        for there, here in instead.items():
            assert there in text
            text = text.replace(there, here)
        found = compose(text)["services"]
        log = stack.enter_context((tmp_path / "log").open("w"))
        for name in ("segment", "prepare", "web", "worker", "beat", "varnish"):
            process = start(found[name], log)
            stack.callback(kill, process)
            if name == "prepare":
                assert process.wait(PATIENCE) == 0, (tmp_path / "log").read_text()
        shop, segment = f"http://127.0.0.1:{ports['8000']}", f"http://127.0.0.1:{ports['8001']}"
        wait_until(lambda: answers(f"{shop}/live/"), lambda: (tmp_path / "log").read_text()[-3000:])
        yield shop, segment
    with psycopg.connect(login, autocommit=True) as connection:
        connection.execute("DROP DATABASE example WITH (FORCE)")
        connection.execute("DROP ROLE example")


def start(service: dict[str, Any], log: Any) -> subprocess.Popen[str]:
    """A service's command, with its environment."""
    program, *arguments = service["command"]
    if program == "python":
        program = sys.executable
    elif program == "varnishd":
        arguments = ["-j", "none", *arguments]  # its image has a user for it
    else:
        program = str(Path(sys.executable).with_name(program))
    path = f"{os.environ['PATH']}:/usr/sbin"
    environment = {"PATH": path, "PYTHONUNBUFFERED": "1", **service.get("environment", {})}
    return subprocess.Popen(
        [program, *arguments],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        text=True,
        start_new_session=True,
    )


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


def test_page_view_goes_all_the_way(shop: tuple[str, str]) -> None:
    """Varnish, Django, DynamoDB Local, Redis, Celery, the local Segment."""
    site, segment = shop
    browser = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Chrome/156.0.0.0"}
    first, second = (requests.get(f"{site}/", headers=browser, timeout=10) for _ in range(2))
    assert (first.status_code, second.headers["X-Cache"]) == (200, "HIT")
    [image] = re.findall(r'<noscript>.*?<img[^>]* src="([^"]+)"', second.text, re.DOTALL)
    referer = {"Referer": f"{site}/", "Sec-Fetch-Site": "same-origin"}
    pixel = requests.get(f"{site}{html.unescape(image)}", headers={**browser, **referer}, timeout=10)
    assert pixel.headers["X-Segment-Fallback"] == "accepted"
    deadline = time.monotonic() + PATIENCE
    arrived: list[Any] = []
    while not arrived and time.monotonic() < deadline:
        arrived = requests.get(f"{segment}/_local/messages", timeout=10).json()["messages"]
        time.sleep(0.2)
    assert [message["message"]["type"] for message in arrived] == ["page"]
