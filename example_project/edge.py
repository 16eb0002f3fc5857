"""Varnish before the shop, with the project's own docs/edge/varnish.vcl."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

from django.core.management import call_command
from django.core.management.base import CommandError

from example_project.settings import BASE_DIR

_OWN = {
    "vcl 4.1;\n": 'vcl 4.1;\ninclude "{include}";\n',
    '.port = "8000";': '.port = "{origin}";',
    # What is personal in the shop; and whoever uses the demo's switches gets pages of his own.
    'if (req.url ~ "^/(admin|accounts)(/|\\?|$)") {': (
        'if (req.url ~ "^/(admin|live|audience)(/|[?]|$)"'
        ' || req.http.Cookie ~ "demo_switch=(script|api|javascript)") {{'
    ),
}


def varnish(folder: Path, host: str, port: int, origin: int) -> list[str]:
    """The command that listens on ``port`` and asks Django on ``origin``. Raises CommandError where there is none."""
    program = shutil.which("varnishd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise CommandError("--varnish needs Varnish, which is not here. On Debian: apt-get install varnish")
    vcl = write_vcl(folder, origin)
    work = folder / "varnish"
    work.mkdir(exist_ok=True)
    quiet = ["-j", "none", "-F", "-p", "vsl_space=1M", "-s", "malloc,20m"]
    return [program, *quiet, "-n", str(work), "-f", str(vcl), "-a", f"{host}:{port}"]


def write_vcl(folder: Path, origin: int) -> Path:
    """Write the configuration, and what it includes, into the folder; where it is. Django is on the port ``origin``."""
    include, vcl = folder / "variations.vcl", folder / "shop.vcl"
    printed = io.StringIO()
    call_command("segment_variations", "--varnish", "--only", "^/offers/", stdout=printed)
    include.write_text(printed.getvalue())
    text = (BASE_DIR / "docs/edge/varnish.vcl").read_text()
    for documented, own in _OWN.items():
        if text.count(documented) != 1:
            raise CommandError(f"docs/edge/varnish.vcl must have {documented!r} once.")
        text = text.replace(documented, own.format(include=include, origin=origin))
    vcl.write_text(text)
    return vcl
