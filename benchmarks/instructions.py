"""Instructions a request, through Django's own handler and no server: ``python -m benchmarks.instructions [--write]``

valgrind's callgrind counts those of a whole process that answers some requests, and those of one that answers more;
the difference is what requests cost, and repeats within a percent on a noisy machine. ``--write`` also keeps, in
benchmarks/results/profiles, which functions of the interpreter (callgrind) and of Python (cProfile) it goes to.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import os
import pstats
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, Report, Result, main

ROOT = Path(__file__).parents[1]
OURS = ["-m", "benchmarks.instructions"]
PROFILES = RESULTS / "profiles"
FEW, MANY = 100, 400
"""Requests of both processes. The first ones fill caches, in both."""

VIEWS: Mapping[str, tuple[str, str]] = {
    "bare": ("bare", ""),
    "at once": ("bare", "benchmarks.project.at_once"),
    "pixel": ("pixel", "segment_fallback.middleware.SegmentMiddleware"),
    "pixel, routed": ("pixel", ""),
}
"""By name: what is asked for, and the middleware that comes first."""


def measure(report: Report, arguments: argparse.Namespace) -> None:
    counted = {name: instructions(name) for name in VIEWS}
    bare = counted["bare"]
    view = "bare view, default middleware"
    report.add(Result("pixel, answered early", view, counted["pixel"], bare, "instructions", 0.5, at_most=True))
    share = counted["at once"] / bare
    report.note(
        f"an image at once, behind Django's handler: {counted['at once']:,.0f} instructions, {share:.3g} of bare's"
    )
    report.note(f"pixel, by URL routing: {counted['pixel, routed']:,.0f} instructions")
    if arguments.write:
        PROFILES.mkdir(parents=True, exist_ok=True)
        for name in VIEWS:
            told = f"{name}: {counted[name]:,.0f} instructions a request\n\n{profile(name)}"
            file = PROFILES / f"{re.sub(', | ', '_', name)}.txt"
            file.write_text(re.sub(r"(?m) +$", "", told.replace(f"{ROOT}{os.sep}", "")), encoding="utf-8")


def instructions(view: str) -> float:
    """Those of one request."""
    with tempfile.TemporaryDirectory() as folder:
        few, many = (_count(view, number, Path(folder, str(number))) for number in (FEW, MANY))
    return (many - few) / (MANY - FEW)


def _count(view: str, number: int, output: Path) -> int:
    """Those of a process that answers so many requests."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise SystemExit("no valgrind: apt-get install valgrind")
    command = [valgrind, "--tool=callgrind", f"--callgrind-out-file={output}", sys.executable, *OURS]
    done = subprocess.run(  # noqa: S603 - ours
        [*command, "--answer", view, str(number)], env=_environment(view), capture_output=True, text=True, check=True
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if found is None:
        raise RuntimeError(f"callgrind says nothing: {done.stderr}")
    return int(found[1])


def profile(view: str) -> str:
    """The functions of the interpreter and of Python that the requests spend most in."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "callgrind")
        _count(view, MANY, output)
        annotated = subprocess.run(  # noqa: S603 - ours
            ["callgrind_annotate", "--show-percs=yes", "--threshold=80", str(output)],  # noqa: S607 - wherever it is
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    # Where Python was built and lies is this machine's business.
    functions = re.sub(r"/\S*/| \[.*?\]", "", annotated.partition("file:function\n")[2])
    command = [sys.executable, *OURS, "--profile", view, str(MANY)]
    done = subprocess.run(command, env=_environment(view), capture_output=True, text=True, check=True)  # noqa: S603
    return f"Of the process, its start included:\n{functions[:4_000]}\n{done.stdout}"


def _environment(view: str) -> dict[str, str]:
    own = {
        "BENCHMARK_FIRST": VIEWS[view][1],
        "DJANGO_SETTINGS_MODULE": "benchmarks.project",
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": str(ROOT),
    }
    return {**os.environ, **own}


def answerer(view: str, number: int) -> Callable[[], None]:
    """What answers so many requests, as a WSGI server would have it; in a process of the benchmarks' project."""
    from benchmarks.applications import wsgi
    from benchmarks.sites import hits

    environs: list[dict[str, Any]] = []
    server = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.url_scheme": "http",
    }
    visits = hits(VIEWS[view][0], 100)
    for count in range(number):
        hit = visits[count % len(visits)]
        path, _, query = hit.path(f"{count:032x}").partition("?")
        headers = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in hit.headers.items()}
        asked = {"PATH_INFO": path, "QUERY_STRING": query, "wsgi.input": io.BytesIO()}
        environs.append({**server, **asked, **headers})

    def start_response(status: str, headers: list[tuple[str, str]]) -> Any:
        if status != "200 OK":
            raise RuntimeError(status)

    def answer() -> None:
        for environ in environs:
            response = wsgi(environ, start_response)
            b"".join(response)
            response.close()

    return answer


def child(what: str, view: str, number: int) -> None:
    """In a process of its own: answer the requests, and check that all hits were accepted."""
    answer = answerer(view, number)
    if what == "--profile":
        profiler = cProfile.Profile()
        profiler.runcall(answer)
        stats = pstats.Stats(profiler, stream=sys.stdout).strip_dirs()
        stats.sort_stats("tottime").print_stats(40)
    else:
        answer()
    from segment_fallback.tally import tally

    tally.write()
    from segment_fallback.buffers import buffers

    found = buffers["default"].outcome_counts()
    if VIEWS[view][0] == "pixel" and [*found.values()] != [number]:
        raise SystemExit(f"not every hit was accepted: {found}")


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in ("--answer", "--profile"):
        child(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    else:
        main("instructions", "Instructions of a pixel's answer", measure)
