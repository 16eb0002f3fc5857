"""The health endpoint: 200 while the pipeline is well, 503 with what is wrong.

Mount it where you like: ``path("health/segment/", health.view)``. It is for monitors that call people. Do not let a
load balancer or an orchestrator end processes by it: another process would do no better.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from segment_fallback.status import Ailment, Problem, cheap, full


def problems(only: Collection[str] | None = None, *, counting: bool = False) -> Iterator[Problem]:
    """What is wrong now, or was a few seconds ago, worst first.

    ``only``: the ailments that matter, by default all; raises ValueError for a word that is none. ``counting``: also
    read what costs money, see ``read_status``.
    """
    wanted = {Ailment(word) for word in (Ailment if only is None else only)}
    status = (full if counting else cheap).status()
    found = [Problem(Ailment.BUFFER_DOWN, "no answer yet")] if status is None else status.problems
    yield from (problem for problem in found if problem.ailment in wanted)


# No transaction: where the database is down, none could begin.
@transaction.non_atomic_requests
@require_safe
def view(
    request: HttpRequest, *, only: Collection[str] | None = None, details: bool = False, counting: bool = False
) -> HttpResponse:
    """The keywords are the URLconf's to give: ``path("…", health.view, {"details": True})``.

    ``details``: a line about each problem, with numbers and names of hosts; for paths that no stranger can ask for.
    """
    found = list(problems(only, counting=counting))
    said = [{"problem": problem.ailment.value, **({"detail": problem.detail} if details else {})} for problem in found]
    response = JsonResponse({"status": "failing" if found else "ok", "problems": said}, status=503 if found else 200)
    response["Cache-Control"] = "no-store"
    return response
