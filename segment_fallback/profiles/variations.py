"""Variations: a page that comes in a few versions, and a function that says which one a visitor's profile asks for.

Each is declared with its names, the default first, so that caches know how many copies there can be. Who is unknown
gets the default, and so does everybody where ``choose`` fails or says a name that is not declared.

With VARIATIONS "visitor" the profile decides in each request, and the answer says ``Vary: Cookie``. With "edge" a page
goes by a signed cookie alone, whose value is the same for all visitors of that variation: an edge knows all the values
that there are, keeps a copy for each, and drops every other cookie. ``assign.py`` sets it, where no cache keeps the
answer.
"""

from __future__ import annotations

import functools
import logging
import re
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast, overload

from asgiref.sync import iscoroutinefunction
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.cache import patch_vary_headers
from django.utils.module_loading import autodiscover_modules

from segment_fallback.conf import Settings, get_settings
from segment_fallback.log import log_fields
from segment_fallback.names import variation_cookie, variation_signature
from segment_fallback.profiles.lookup import aprofile_of, profile_of
from segment_fallback.profiles.store import Profile

View = TypeVar("View", bound=Callable[..., Any])
Choose = Callable[[Profile], str]

logger = logging.getLogger("segment_fallback")

MODULE = "segment_variations"
MAX_VARIATIONS = 20
"""Of one experiment: an edge keeps a copy of the page for each."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}\Z")


@dataclass(frozen=True)
class Experiment:
    """A page's variations. ``paths``: what is served in place of the page, by variation; without, the page's own view
    looks at ``request.segment.variation``."""

    id: str
    choose: Choose
    names: tuple[str, ...]
    paths: Mapping[str, str] = field(default_factory=dict)

    @property
    def default(self) -> str:
        return self.names[0]

    @property
    def cookie(self) -> str:
        """The name of its cookie: the site's own."""
        return variation_cookie(self.id)

    def value(self, name: str) -> str:
        """What the cookie says of that variation: the same for all its visitors."""
        return f"{self.id}.{name}.{variation_signature(self.id, name)}"

    @property
    def values(self) -> dict[str, str]:
        """Every genuine value of the cookie, and its variation. The default has none: it is what no cookie means."""
        return {self.value(name): name for name in self.names[1:]}

    def of_cookie(self, request: HttpRequest) -> str:
        """What the cookie says; the default where there is none, or one that this site has not signed."""
        cookie = request.COOKIES.get(self.cookie)
        return self.values.get(cookie, self.default) if cookie else self.default

    def of_profile(self, profile: Profile | None) -> str:
        """What ``choose`` says; the default where it fails (unless RAISE_ERRORS), or says what is not declared."""
        if profile is None:
            return self.default
        try:
            name: object = self.choose(profile)
        except Exception as error:
            if get_settings().RAISE_ERRORS:
                raise
            # Without its text and its traceback's values, which may be the visitor's.
            _complain(self.id, f"choose raised {type(error).__name__}")
            return self.default
        if isinstance(name, str) and name in self.names:
            return name
        _complain(self.id, "choose returned a name that is not declared")
        return self.default


@functools.cache
def _complain(experiment: str, reason: str) -> None:
    """Says so, once a process: it is said for each visitor otherwise."""
    extra = log_fields("variation_failed", experiment=experiment, reason=reason)
    logger.error("variation %s: %s; its visitors get the default", experiment, reason, extra=extra)


class Registry:
    """The variations of this process, by id; and those that a path was declared for, by path."""

    def __init__(self) -> None:
        self._experiments: dict[str, Experiment] = {}
        self.by_path: dict[str, Experiment] = {}
        self._lock = threading.RLock()
        self._discovered = False

    def add(self, experiment: Experiment, path: str | None = None) -> None:
        known = self._experiments.get(experiment.id)
        if known is not None and (known.names != experiment.names or not _is_same(known.choose, experiment.choose)):
            raise ImproperlyConfigured(
                f"two variations are called {experiment.id!r}: give one another name, by experiment="
            )
        self._experiments[experiment.id] = experiment
        if path is not None:
            self.by_path[path] = experiment

    def discover(self) -> None:
        """Import each app's ``segment_variations``, once a process. Raises what one of them raises."""
        with self._lock:
            if not self._discovered:
                self._discovered = True
                autodiscover_modules(MODULE)

    def of_path(self, request: HttpRequest) -> Experiment | None:
        """The variations that were declared for the path of this request."""
        return self.by_path.get(request.path_info)

    def all(self) -> list[Experiment]:
        """By id. Those of decorated views are known once the URLconf is loaded."""
        self.discover()
        return sorted(self._experiments.values(), key=lambda experiment: experiment.id)


def _is_same(one: Any, other: Any) -> bool:
    """Whether it is the same function, perhaps of a module that was loaded again."""
    if one is other:
        return True
    places = [(getattr(each, "__module__", ""), getattr(each, "__qualname__", "<lambda>")) for each in (one, other)]
    return places[0] == places[1] and "<lambda>" not in places[0][1]


registry = Registry()


@overload
def variation(
    where: str, choose: Choose, variations: Sequence[str] | Mapping[str, str], *, experiment: str = ""
) -> None: ...


@overload
def variation(where: Choose, choose: Sequence[str], *, experiment: str = "") -> Callable[[View], View]: ...


def variation(where: Any, choose: Any, variations: Any = None, *, experiment: str = "") -> Any:
    """Declare a page's variations, the default first: on a view, or for a path in an app's ``segment_variations.py``.

        @variation(choose, ["regular", "gold"])
        def home(request): ...                      # looks at request.segment.variation

        variation("/", choose, ["regular", "gold"])
        variation("/", choose, {"regular": "/", "gold": "/gold/"})     # serves that path under the URL of "/"

    ``choose(profile)`` returns one of the names. It is called with a profile only, must be quick, and asks no network.
    ``experiment`` names the whole in cookies and events: by default the view's name, or the path. Names are 1 to 40
    ASCII letters, digits, ``-`` or ``_``. Raises ImproperlyConfigured for what cannot be.
    """
    of_path = isinstance(where, str)
    names = variations if of_path else choose
    if not callable(choose if of_path else where) or isinstance(names, str) or not isinstance(names, Collection):
        form = '"/path/", choose, names' if of_path else "choose, names"
        raise ImproperlyConfigured(f"variation({form}): choose is a function, names are a list, the default first")
    if of_path:
        _declare_path(where, choose, variations, experiment)
        return None
    return functools.partial(_decorate, choose=where, names=tuple(map(str, choose)), experiment=experiment)


def _declare_path(path: str, choose: Choose, variations: Sequence[str] | Mapping[str, str], name: str) -> None:
    paths = dict(variations) if isinstance(variations, Mapping) else {}
    if wrong := [own for own in (path, *paths.values()) if not own.startswith("/")]:
        raise ImproperlyConfigured(f"variation({path!r}, …): the path {wrong[0]!r} must begin with a slash")
    name = name or re.sub(r"[^A-Za-z0-9_-]+", "-", path).strip("-")[:40] or "home"
    registry.add(_checked(Experiment(name, choose, tuple(map(str, variations)), paths)), path)


def _checked(experiment: Experiment) -> Experiment:
    names = experiment.names
    if wrong := [name for name in (experiment.id, *names) if not _NAME.match(name)]:
        raise ImproperlyConfigured(
            f"variation {experiment.id!r}: {wrong[0]!r} must be 1 to 40 ASCII letters, digits, '-' or '_'"
        )
    if not 2 <= len(names) <= MAX_VARIATIONS or len(set(names)) < len(names):
        raise ImproperlyConfigured(
            f"variation {experiment.id!r} must have 2 to {MAX_VARIATIONS} names, each once, the default first"
        )
    if not callable(experiment.choose):
        raise ImproperlyConfigured(f"variation {experiment.id!r}: choose must be a function of a profile")
    return experiment


def _decorate(view: View, *, choose: Choose, names: tuple[str, ...], experiment: str) -> View:
    name = experiment or getattr(view, "__name__", "")
    if not experiment and name in ("", "view", "<lambda>"):
        raise ImproperlyConfigured("variation(…) needs experiment= where the view has no name of its own")
    own = _checked(Experiment(name, choose, names))
    registry.add(own)

    @functools.wraps(view)
    def varied(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        assign(own, request)
        return varies(view(request, *args, **kwargs))

    @functools.wraps(view)
    async def avaried(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        await aassign(own, request)
        return varies(await view(request, *args, **kwargs))

    return cast(View, avaried if iscoroutinefunction(view) else varied)


def assign(experiment: Experiment, request: HttpRequest) -> str:
    """Which variation the request gets; ``request.segment`` says it from now on."""
    profile = profile_of(request) if get_settings().VARIATIONS == "visitor" else None
    return _note(experiment, request, profile)


async def aassign(experiment: Experiment, request: HttpRequest) -> str:
    profile = await aprofile_of(request) if get_settings().VARIATIONS == "visitor" else None
    return _note(experiment, request, profile)


def _note(experiment: Experiment, request: HttpRequest, profile: Profile | None) -> str:
    visitor = getattr(request, "segment", None)
    if visitor is None:
        raise ImproperlyConfigured(
            "variations need 'segment_fallback.middleware.SegmentMiddleware' in MIDDLEWARE, best as the first"
        )
    by_cookie = get_settings().VARIATIONS == "edge"
    name = experiment.of_cookie(request) if by_cookie else experiment.of_profile(profile)
    visitor.variation = name
    visitor.variations = {**visitor.variations, experiment.id: name}
    return name


def serve(experiment: Experiment, request: HttpRequest, name: str) -> None:
    """Let Django serve the variation's path. ``request.path`` stays what the visitor asked for."""
    request.path_info = experiment.paths.get(name, request.path_info)


Response = TypeVar("Response")


def varies(response: Response) -> Response:
    """The response, with ``Vary: Cookie`` where cookies say who the visitor is."""
    if isinstance(response, HttpResponseBase) and get_settings().VARIATIONS == "visitor":
        patch_vary_headers(response, ["Cookie"])
    return response


def client_side_traits(profile: Profile | None, settings: Settings) -> dict[str, Any]:
    """Those of CLIENT_SIDE_TRAITS that the profile has."""
    traits: Mapping[str, Any] = profile.traits if profile else {}
    return {name: traits[name] for name in settings.CLIENT_SIDE_TRAITS if name in traits}
