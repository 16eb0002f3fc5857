from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import alogin, login
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client
from django.urls import path

from segment_fallback.checks import check_user_id
from segment_fallback.testing import CapturedMessages

pytestmark = pytest.mark.django_db(transaction=True)

BACKEND = "django.contrib.auth.backends.ModelBackend"


def sign_in(request: HttpRequest) -> HttpResponse:
    login(request, User.objects.get(username="ada"), backend=BACKEND)
    return HttpResponse("welcome back")


async def sign_in_async(request: HttpRequest) -> HttpResponse:
    await alogin(request, await User.objects.aget(username="ada"), backend=BACKEND)
    return HttpResponse("welcome back")


def sign_up(request: HttpRequest) -> HttpResponse:
    login(request, User.objects.create_user("new"), backend=BACKEND)
    return HttpResponse("welcome")


def create_another(request: HttpRequest) -> HttpResponse:
    User.objects.create_user("another")
    login(request, User.objects.get(username="ada"), backend=BACKEND)
    return HttpResponse("created")


urlpatterns = [
    path("in/", sign_in),
    path("in-async/", sign_in_async),
    path("up/", sign_up),
    path("another/", create_another),
]


def traits(user: User) -> dict[str, Any]:
    return {"name": user.get_username()}


def broken(user: User) -> dict[str, Any]:
    raise ValueError("secret")


@pytest.fixture
def visit(settings: Any) -> Callable[..., User]:
    """A visit of somebody with an anonymousId to one of the views; the user who is Ada."""
    settings.ROOT_URLCONF = __name__
    ada: User = User.objects.create_user("ada")

    def visit(url: str, *, asynchronous: bool = False, **keys: Any) -> User:
        settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "AUTH_EVENTS": True, **keys}
        client: Any = AsyncClient() if asynchronous else Client()
        client.cookies["ajs_anonymous_id"] = "visitor-1"
        response = async_to_sync(client.get)(url) if asynchronous else client.get(url)
        assert response.status_code == 200
        return ada

    return visit


@pytest.mark.parametrize(("url", "asynchronous"), [("/in/", False), ("/in/", True), ("/in-async/", True)])
def test_login_identifies_without_traits(
    visit: Callable[..., User], segment_messages: CapturedMessages, url: str, asynchronous: bool
) -> None:
    ada = visit(url, asynchronous=asynchronous)
    [message] = segment_messages.messages
    assert (message["type"], message["traits"]) == ("identify", {})
    assert (message["userId"], message["anonymousId"]) == (str(ada.pk), "visitor-1")


def test_login_identifies_with_the_traits_that_the_site_chose(
    visit: Callable[..., User], segment_messages: CapturedMessages
) -> None:
    ada = visit("/in/", TRAITS=f"{__name__}.traits")
    segment_messages.assert_identified(ada.pk, anonymous_id="visitor-1", traits={"name": "ada"}, times=1)


def test_login_works_where_traits_fail(
    visit: Callable[..., User], segment_messages: CapturedMessages, caplog: Any
) -> None:
    ada = visit("/in/", TRAITS=f"{__name__}.broken")
    segment_messages.assert_identified(ada.pk, times=1)
    assert "TRAITS failed" in caplog.text
    assert "secret" not in caplog.text
    with pytest.raises(ValueError, match="secret"):
        visit("/in/", TRAITS=f"{__name__}.broken", RAISE_ERRORS=True)


def test_sign_up_is_an_alias_and_then_an_identify(
    visit: Callable[..., User], segment_messages: CapturedMessages
) -> None:
    visit("/up/")
    alias, identify = segment_messages.messages
    new = str(User.objects.get(username="new").pk)
    assert (alias["type"], alias["previousId"], alias["userId"]) == ("alias", "visitor-1", new)
    assert (identify["type"], identify["anonymousId"], identify["userId"]) == ("identify", "visitor-1", new)


def test_user_whom_somebody_else_creates_is_not_that_visitor(
    visit: Callable[..., User], segment_messages: CapturedMessages
) -> None:
    ada = visit("/another/")
    [message] = segment_messages.messages
    assert (message["type"], message["userId"]) == ("identify", str(ada.pk))


@pytest.mark.parametrize(("path", "wrong"), [(f"{__name__}.traits", 0), (f"{__name__}.no_function", 1)])
def test_check_wants_a_function(settings: Any, path: str, wrong: int) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "TRAITS": path}
    found = check_user_id(None)
    assert [error.id for error in found] == ["segment_fallback.E008"] * wrong
    assert all("TRAITS" in error.msg for error in found)


def test_login_says_nothing_by_default(visit: Callable[..., User], segment_messages: CapturedMessages) -> None:
    visit("/in/", AUTH_EVENTS=False)
    visit("/up/", AUTH_EVENTS=False)
    assert segment_messages.messages == []


def test_login_without_a_visitor_says_nothing(segment_messages: CapturedMessages, settings: Any) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "AUTH_EVENTS": True}
    Client().force_login(User.objects.create_user("ada"))
    assert segment_messages.messages == []
