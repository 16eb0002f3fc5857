"""The dashboard, as an entry in Django's admin.

For an AdminSite of your own: ``site.register(Dashboard, DashboardAdmin)``.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.text import Truncator

from segment_fallback.buffers import buffers
from segment_fallback.dashboard.letters import AT_ONCE, choose
from segment_fallback.dashboard.page import read_page
from segment_fallback.dashboard.ranges import DEFAULT, RANGES
from segment_fallback.delivery import dead_letters
from segment_fallback.exceptions import BufferUnavailable
from segment_fallback.models import Dashboard
from segment_fallback.wording import counted

TEMPLATES = "admin/segment_fallback/dashboard"
NAME = "segment_fallback_dashboard"
MANAGE = "segment_fallback.manage_dead_letters"


@admin.register(Dashboard)
class DashboardAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Two permissions: ``view_dashboard`` to see it, ``manage_dead_letters`` to replay and delete dead letters, too."""

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("", view(self.changelist_view), name=f"{NAME}_changelist"),
            path("live/", view(self.live_view), name=f"{NAME}_live"),
            path("dead-letters/", view(self.dead_letters_view), name=f"{NAME}_dead_letters"),
        ]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The page."""
        return self._render(request, "page.html", {"title": "Dashboard", **(extra_context or {})})

    def live_view(self, request: HttpRequest) -> HttpResponse:
        """The part of the page that changes, for the page's script."""
        return self._render(request, "live.html", {})

    def _render(self, request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        if not self.has_view_permission(request):
            raise PermissionDenied
        range_ = RANGES.get(request.GET.get("range", ""), DEFAULT)
        return self._response(
            request,
            template,
            {**read_page(range_), "may_manage": request.user.has_perm(MANAGE), **context},
        )

    def dead_letters_view(self, request: HttpRequest) -> HttpResponse:
        """Replays or deletes what a form names; before it deletes, it asks."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.has_view_permission(request) or not request.user.has_perm(MANAGE):
            raise PermissionDenied
        form = request.POST
        alias, action, reason = form.get("buffer", ""), form.get("action", ""), form.get("reason")
        for each in ("replay", "delete"):  # the buttons beside a reason name it themselves
            if f"{each}-reason" in form:
                action, reason = each, form[f"{each}-reason"]
        if alias not in list(buffers) or action not in ("replay", "delete"):
            raise Http404
        message_ids = form.getlist("id")
        if not message_ids and reason is None:
            messages.warning(request, "No dead letter was chosen.")
        elif action == "delete" and "confirmed" not in form:
            return self._confirm(request, alias, message_ids, reason)
        else:
            self._act(request, alias, action, message_ids, reason)
        return HttpResponseRedirect(self._url("changelist"))

    def _confirm(self, request: HttpRequest, alias: str, message_ids: list[str], reason: str | None) -> HttpResponse:
        try:
            number = len(list(choose(buffers[alias], message_ids, reason)))
        except BufferUnavailable as error:
            messages.error(request, f"The dead letters could not be read: {error}")
            return HttpResponseRedirect(self._url("changelist"))
        context = {
            "title": "Delete dead letters?",
            "number": number,
            "alias": alias,
            "message_ids": message_ids,
            "reason": reason,
            "at_once": AT_ONCE,
        }
        return self._response(request, "confirm.html", context)

    def _act(self, request: HttpRequest, alias: str, action: str, message_ids: list[str], reason: str | None) -> None:
        work = dead_letters.replay if action == "replay" else dead_letters.delete
        try:
            number = work(buffers[alias], choose(buffers[alias], message_ids, reason))
        except BufferUnavailable as error:
            messages.error(request, f"Not all of it was done, because the buffer failed: {error}")
            return
        letters = counted(number, "dead letter")
        done = "replayed; the next flush sends what waits" if action == "replay" else "deleted"
        more = " There may be more of them: do it again." if number == AT_ONCE else ""
        messages.success(request, f"{letters} {done}.{more}")
        if number:
            self._log(request, action, f"{letters} of buffer {alias!r}", reason)

    def _log(self, request: HttpRequest, action: str, what: str, reason: str | None) -> None:
        """Who did it, in the admin's history."""
        LogEntry.objects.create(
            user_id=request.user.pk,
            content_type=ContentType.objects.get_for_model(Dashboard, for_concrete_model=False),
            object_repr=Truncator(what).chars(200),
            action_flag=DELETION if action == "delete" else CHANGE,
            change_message=f"{'Replayed' if action == 'replay' else 'Deleted'} {what}"
            + (f", reason {reason!r}." if reason else "."),
        )

    def _response(self, request: HttpRequest, template: str, context: dict[str, Any]) -> TemplateResponse:
        request.current_app = self.admin_site.name
        urls = {name: self._url(name) for name in ("changelist", "live", "dead_letters")}
        every = {**self.admin_site.each_context(request), "opts": self.opts, "urls": urls, **context}
        return TemplateResponse(request, f"{TEMPLATES}/{template}", every)

    def _url(self, name: str) -> str:
        return reverse(f"admin:{NAME}_{name}", current_app=self.admin_site.name)
