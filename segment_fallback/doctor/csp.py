"""A page's Content-Security-Policy, and the smallest change of it that lets our snippet work."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from segment_fallback.doctor.cache import may_be_kept
from segment_fallback.doctor.fetch import origin
from segment_fallback.doctor.finding import Findings, Level, kind
from segment_fallback.doctor.html import Hook
from segment_fallback.doctor.page import Page

SCRIPT = kind(
    "policy.csp_script",
    Level.ERROR,
    "The browser runs none of the snippet: the page's views reach nobody, but for those without JavaScript.",
    "Set EXTERNAL_SCRIPT, and allow 'self' in script-src; or give the tag the policy's nonce, on pages no cache keeps.",
)
LIBRARY = kind(
    "policy.csp_library",
    Level.WARNING,
    "The browser does not load analytics.js: every view comes by the pixel, and its destinations get nothing.",
    "Allow the library's origin in script-src, or set FIRST_PARTY, with which it is 'self'.",
)
CONNECT = kind(
    "policy.csp_connect",
    Level.WARNING,
    "analytics.js can neither fetch its settings nor report, or a beacon of a visitor who leaves is not sent.",
    "Allow these origins in connect-src, or set FIRST_PARTY, with which 'self' is enough.",
)
IMAGE = kind(
    "policy.csp_img",
    Level.ERROR,
    "The pixel is an image of the site's own: without it nothing is left where analytics.js is blocked.",
    "Allow 'self' in img-src.",
)
NONCE_KEPT = kind(
    "policy.csp_nonce_kept",
    Level.WARNING,
    "A cache keeps the page with its nonce, so that everybody knows it and it protects nobody; where the header is new "
    "each time, the script does not run.",
    "Set EXTERNAL_SCRIPT, whose script needs no nonce: script-src 'self'.",
)

_FALLBACK = {
    "script-src-elem": ("script-src-elem", "script-src", "default-src"),
    "connect-src": ("connect-src", "default-src"),
    "img-src": ("img-src", "default-src"),
}
_NOT_INLINE = re.compile(r"'(?:nonce|sha256|sha384|sha512)-|'strict-dynamic'", re.IGNORECASE)
_NONCE = re.compile(r"'nonce-[^']*'")


@dataclass
class Policy:
    """One policy: its directives in their order, and the header (or meta) that has it."""

    header: str
    directives: dict[str, list[str]]

    def governing(self, directive: str) -> str | None:
        """The name of the directive that decides; None where there is none, so that everything is allowed."""
        return next((name for name in _FALLBACK[directive] if name in self.directives), None)

    def sources(self, directive: str) -> list[str] | None:
        """The sources that decide; None where everything is allowed."""
        name = self.governing(directive)
        return None if name is None else self.directives[name]

    def with_sources(self, wanted: dict[str, list[str]]) -> str:
        """The header with these sources added, and nothing else changed."""
        directives = {name: list(sources) for name, sources in self.directives.items()}
        for directive, sources in wanted.items():
            name = self.governing(directive)
            if name in (None, "default-src"):
                name = directive.removesuffix("-elem")
                directives[name] = list(directives.get("default-src", []))
            kept = [source for source in directives[name] if source.lower() != "'none'"]
            directives[name] = [*kept, *(source for source in sources if source not in kept)]
        text = "; ".join(" ".join([name, *sources]) for name, sources in directives.items())
        return f"{self.header}: {_NONCE.sub(chr(39) + 'nonce-…' + chr(39), text)}"


def policies(page: Page) -> list[Policy]:
    """The policies that a browser obeys on this page; those that only report are none."""
    found = page.first.headers.get("Content-Security-Policy", "").split(",")
    header = [_parse(text, "Content-Security-Policy") for text in found]
    meta = [
        _parse(text, '<meta http-equiv="Content-Security-Policy">')
        for text in page.document.meta("http-equiv", "content-security-policy")
    ]
    return [policy for policy in [*header, *meta] if policy.directives]


def _parse(text: str, header: str) -> Policy:
    directives: dict[str, list[str]] = {}
    for part in text.split(";"):
        name, *sources = part.split() or [""]
        if name:
            directives.setdefault(name.lower(), sources)  # the first of a name counts
    return Policy(header, directives)


def lets_snippet_work(page: Page) -> Findings:
    """Each policy allows what the snippet does; the finding has the header that does."""
    hook = page.hook
    if hook is None:
        return
    for policy in policies(page):
        missing = dict(_missing(page, hook, policy))
        together: dict[str, list[str]] = {}
        for directive, sources in missing.values():
            together.setdefault(directive, []).extend(sources)
        for kind_id, (directive, sources) in missing.items():
            told = _KINDS[kind_id]
            setting = "Set EXTERNAL_SCRIPT, and use" if SCRIPT.id in missing and not hook.is_external else "Use"
            what = f"{policy.header} lacks {' '.join(sources)} in {directive.removesuffix('-elem')}."
            yield told(what, f"{setting} this header: {policy.with_sources(together)}")
        if not missing:
            yield SCRIPT.ok(f"{policy.header} allows what the snippet does.")
    if "nonce" in hook.element.attributes and may_be_kept(page.first):
        yield NONCE_KEPT("The snippet has a nonce, and caches may keep the page.")


_KINDS = {told.id: told for told in (SCRIPT, LIBRARY, CONNECT, IMAGE)}


def _missing(page: Page, hook: Hook, policy: Policy) -> Iterable[tuple[str, tuple[str, list[str]]]]:
    """Kind → what lacks, by directive."""
    site, config = page.first.url, hook.config or {}
    library = urljoin(site, str(config.get("u", "")))
    scripts = policy.sources("script-src-elem")
    if scripts is not None:
        own = urljoin(site, hook.element.attributes["src"]) if hook.element.attributes.get("src") else None
        if not _runs(hook, own, scripts, site):
            yield SCRIPT.id, ("script-src-elem", ["'self'"])
        if "'strict-dynamic'" not in scripts and not allows(scripts, library, site):
            yield LIBRARY.id, ("script-src-elem", [_source(library, site)])
    connect = policy.sources("connect-src")
    if connect is not None:
        lacking = {_source(url, site) for url in _reports_to(config, library, site) if not allows(connect, url, site)}
        if lacking:
            yield CONNECT.id, ("connect-src", sorted(lacking))
    images = policy.sources("img-src")
    if images is not None and not allows(images, site, site):
        yield IMAGE.id, ("img-src", ["'self'"])


def _runs(hook: Hook, url: str | None, sources: list[str], site: str) -> bool:
    nonce = hook.element.attributes.get("nonce")
    if nonce and f"'nonce-{nonce}'" in sources:
        return True
    if url is not None:
        return "'strict-dynamic'" not in sources and allows(sources, url, site)
    digest = base64.b64encode(hashlib.sha256(hook.element.text.encode()).digest()).decode()
    if f"'sha256-{digest}'" in sources:
        return True
    return "'unsafe-inline'" in sources and not any(map(_NOT_INLINE.match, sources))


def _reports_to(config: dict[str, object], library: str, site: str) -> list[str]:
    """Where analytics.js and the pixel's beacon talk to."""
    if "api" in config:
        return [site]
    options = config.get("o")
    integrations = options.get("integrations") if isinstance(options, dict) else None
    own = integrations.get("Segment.io") if isinstance(integrations, dict) else None
    own = own if isinstance(own, dict) else {}
    api = f"{own.get('protocol', 'https')}://{own.get('apiHost', 'api.segment.io/v1')}"
    return [site, library, api]


def _source(url: str, site: str) -> str:
    return "'self'" if origin(url) == origin(site) else origin(url)


def allows(sources: Iterable[str], url: str, site: str) -> bool:
    """Whether one of a directive's sources matches the URL. https://www.w3.org/TR/CSP3/#match-url-to-source-list"""
    target, own = urlsplit(url), urlsplit(site)
    for source in map(str.lower, sources):
        if source == "*" and target.scheme in ("http", "https", own.scheme):
            return True
        if source == "'self'" and target.netloc == own.netloc:
            return True
        if source == f"{target.scheme}:" or (source == "http:" and target.scheme == "https"):
            return True
        if not source.startswith("'") and _host_matches(source, url, own.scheme):
            return True
    return False


def _host_matches(source: str, url: str, own_scheme: str) -> bool:
    target = urlsplit(url)
    scheme, _, rest = source.rpartition("://")
    host, slash, path = rest.partition("/")
    name, _, port = host.partition(":")
    if (scheme or own_scheme) != target.scheme and not (target.scheme == "https" and (scheme or own_scheme) == "http"):
        return False
    wanted = target.hostname or ""
    if name != wanted and not (name.startswith("*.") and wanted.endswith(name[1:])):
        return False
    default = {"http": 80, "https": 443}.get(target.scheme)
    if port != "*" and (int(port) if port.isdigit() else default) != (target.port or default):
        return False
    full = slash + path
    return full in ("", "/") or target.path == full or (full.endswith("/") and target.path.startswith(full))
