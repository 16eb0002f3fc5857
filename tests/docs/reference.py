"""What docs/reference says of the code, taken from the code. ``python -m tests.docs`` writes it."""

from __future__ import annotations

import argparse
import ast
import functools
import importlib
import inspect
import itertools
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand
from django.dispatch import Signal
from django.urls import URLPattern

from segment_fallback import signals, urls
from segment_fallback.conf import KEYS, default_of
from segment_fallback.metrics import COUNTERS, GAUGES
from segment_fallback.outcome import Outcome
from segment_fallback.templatetags import segment_fallback as tags
from tests.docs.pages import DOCS, ROOT, section
from tests.docs.public import PUBLIC

PACKAGE = ROOT / "segment_fallback"


def markdown(text: str) -> str:
    """A docstring as Markdown, in one line, for a cell of a table."""
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")


def table(*rows: Sequence[str]) -> str:
    head, *body = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *body]).replace("| --- ", "|---")


def attribute_docs(body: Sequence[ast.stmt]) -> dict[str, str]:
    """What the text below each assignment says."""
    found = {}
    for before, text in itertools.pairwise(body):
        match before, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(said))),
            ):
                found[name] = markdown(said)
    return found


def parsed(module: str) -> ast.Module:
    return ast.parse((PACKAGE / module).read_text("utf-8"))


def settings() -> str:
    body = next(node.body for node in parsed("conf.py").body if isinstance(node, ast.ClassDef))
    said = attribute_docs(body)
    rows = []
    for key in KEYS:
        default = "a `DatabaseBuffer`" if key == "BUFFERS" else f"`{default_of(key)!r}`"
        rows.append([f"`{key}`", default, said[key]])
    return table(["Key", "Default", "Meaning"], *rows)


def outcomes() -> str:
    return table(["Outcome", "Meaning"], *([f"`{outcome.value}`", outcome.explanation] for outcome in Outcome))


def template_tags() -> str:
    parts = []
    for tag in tags.register.tags:
        function = getattr(tags, tag)
        parts.append(f"## `{{% {tag} %}}`\n\n{arguments(function, ('context',))}\n\n{body_of(function)}")
    return "\n\n".join(parts)


def commands() -> str:
    """Each command's own help and options, without those that every command of Django's has."""
    common = {action.dest for action in parser_of(BaseCommand(), "any")._actions}
    parts = []
    for command in own_commands():
        parser = parser_of(load_command_class("segment_fallback", command), command)
        rows = [argument(action) for action in parser._actions if action.dest not in common]
        told = table(["Argument", "Meaning"], *rows) if rows else "No options of its own."
        parts.append(f"## {command}\n\n{parser.description}\n\n{told}")
    return "\n\n".join(parts)


def own_commands() -> list[str]:
    return sorted(command for command, app in get_commands().items() if app == "segment_fallback")


def parser_of(command: BaseCommand, name: str) -> argparse.ArgumentParser:
    return command.create_parser("manage.py", name)


def argument(action: argparse.Action) -> list[str]:
    """An argument as one types it, and what its help says."""
    choices = "" if action.choices is None else "{" + ",".join(map(str, action.choices)) + "}"
    value = action.metavar if isinstance(action.metavar, str) else choices or action.dest.upper()
    typed = value
    if action.option_strings:
        typed = action.option_strings[-1] + ("" if action.nargs == 0 else f" {value}")
    elif action.nargs == "*":
        typed = f"[{value} …]"
    said = (action.help or "") % {"default": action.default, "prog": "manage.py"}
    return [
        f"`{typed}`".replace("|", "\\|"),
        said.replace("|", "\\|") or (f"default `{action.default}`" if action.default else "what to do"),
    ]


SAYS = {
    "E001": "`WRITE_KEY` is missing.",
    "E002": "A key of `SEGMENT_FALLBACK` that there is not.",
    "E003": "A value of a wrong type.",
    "E004": "A value that is not allowed.",
    "E005": "A buffer of `BUFFERS` cannot be made: the path, the extra that it needs, or its `OPTIONS`.",
    "E013": "The store of `PROFILES` cannot be made.",
    "E008": "What `USER_ID` or `TRAITS` names is not a function.",
    "W006": "A `DynamoDBBuffer` without a region, or with an `endpoint_url` that is none.",
    "W007": "An `API_HOST` is not where Segment takes events, or `LOAD_OPTIONS` sends pages to another region.",
    "W008": "`EAGER` without `FIRST_PARTY`, or with a `HOLD` under 15 seconds: Segment keeps a view's pixel.",
    "W009": "`COOKIE_DOMAIN` is no domain of the site's; browsers refuse such cookies.",
    "W010": "`COOKIELESS` without `FIRST_PARTY`, or with `IDENTIFY`.",
    "W011": "`IDENTIFY`, `RESET_AT_LOGOUT`, `INJECT` or `VARIATIONS` without SegmentMiddleware: nothing happens.",
    "W016": "`PROFILE_SECRETS`, `PROFILE_API` or `VARIATIONS` without `PROFILES`: nothing happens.",
    "W017": "Variations are declared, and everybody gets the default, as `VARIATIONS` is not set.",
}
"""What a check means whose own words are all in what it found."""


def checks() -> str:
    rows = checks_in_code()
    cells = ([f"`segment_fallback.{number}`", *rest] for number, *rest in rows)
    return table(["Id", "Level", "What is wrong", "What to do"], *cells)


@functools.cache
def checks_in_code() -> list[tuple[str, str, str, str]]:
    """Number, level, text and hint of each ``Error(…)`` and ``Warning(…)`` that the app returns."""
    trees = (ast.parse(file.read_text("utf-8")) for file in PACKAGE.rglob("*.py"))
    functions = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return sorted({row for function in functions for row in checks_of(function)})


def checks_of(function: ast.FunctionDef) -> Iterator[tuple[str, str, str, str]]:
    texts: dict[str, str] = {}
    nodes = [node for node in ast.walk(function) if isinstance(node, (ast.Assign, ast.Call))]
    for node in sorted(nodes, key=lambda node: (node.lineno, isinstance(node, ast.Call))):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                texts[name] = words(value, texts)
            case ast.Call(func=ast.Name(id=level) | ast.Attribute(attr=level), args=[text, *_], keywords=keywords):
                named = {keyword.arg: keyword.value for keyword in keywords}
                if level not in ("Error", "Warning") or "id" not in named:
                    continue
                said, hint = words(text, texts), words(named["hint"], texts)
                for number in re.findall(r"[EW]\d{3}", ast.unparse(named["id"])):
                    yield number, level.lower(), SAYS.get(number, said), hint


def words(node: ast.expr, names: dict[str, str]) -> str:
    """A text of the code's for people, with ``…`` for what only a site knows."""
    match node:
        case ast.Constant(value=str(text)):
            return markdown(text)
        case ast.JoinedStr(values=values):
            pieces = (value.value if isinstance(value, ast.Constant) else "…" for value in values)
            return markdown("".join(map(str, pieces)))
        case ast.IfExp(body=body, orelse=orelse):
            return f"{words(body, names)} {words(orelse, names)}"
        case ast.Name(id=name):
            return names.get(name, "…")
    return "…"


def endpoints() -> str:
    rows = []
    for pattern in urls.urlpatterns:
        assert isinstance(pattern, URLPattern)
        assert pattern.name
        route = re.sub(r"<(?:\w+:)?(\w+)>", r"<\1>", str(pattern.pattern))
        said = markdown((inspect.getdoc(pattern.callback) or "").partition("\n\n")[0])
        rows.append([f"`{route}`", f"`{pattern.name}`", said])
    return table(["Path", "Name", "What it is"], *rows)


def signal_docs() -> str:
    said = attribute_docs(parsed("signals.py").body)
    return table(["Signal", "When, and with what"], *([f"`{name}`", said[name]] for name in signal_names()))


def signal_names() -> list[str]:
    return [name for name, value in vars(signals).items() if isinstance(value, Signal)]


def metrics() -> str:
    rows = []
    for end, kind, families in (("", "gauge", GAUGES), ("_total", "counter", COUNTERS)):
        for name, (said, labels) in families.items():
            rows.append([f"`segment_fallback_{name}{end}`", kind, ", ".join(f"`{label}`" for label in labels), said])
    return table(["Metric", "Kind", "Labels", "Meaning"], *rows)


def python_api() -> str:
    parts = []
    for module, names in PUBLIC.items():
        loaded = importlib.import_module(module)
        said = attribute_docs(ast.parse(Path(str(loaded.__file__)).read_text("utf-8")).body)
        twins = {f"a{name}" for name in names} & set(names)
        entries = []
        for name in names:
            if name not in twins:
                entries.append(entry(name, getattr(loaded, name), said.get(name, "")))
                if f"a{name}" in twins:
                    entries.append(f"For coroutines: `await a{name}(…)`.")
        parts.append("\n\n".join([f"## {module}", *entries]))
    return "\n\n".join(parts)


def entry(name: str, value: Any, said: str) -> str:
    """A heading, how it is called, and what its docstring says."""
    if isinstance(value, type) and issubclass(value, (Enum, BaseException)):
        return f"### `{name}`\n\n{body_of(value)}"
    if callable(value) and (isinstance(value, type) or inspect.isroutine(value)):
        methods = "".join(f"\n{line}" for line in methods_of(value)) if isinstance(value, type) else ""
        return f"### `{name}`\n\n{arguments(value)}\n\n{body_of(value)}{methods and chr(10) + methods}"
    if hasattr(value, "apply_async"):  # a task, which Celery makes at its first use
        value = value.run
    return f"### `{name}`\n\n{said or body_of(value if inspect.isroutine(value) else type(value))}"


def methods_of(kind: type) -> Iterator[str]:
    """A line for each public method and property that the class itself has."""
    for name, member in vars(kind).items():
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if name.startswith("_") or not inspect.isfunction(function) or not function.__doc__:
            continue
        call = name if isinstance(member, property) else f"{name}{signature(function, ('self', 'cls'))}"
        yield f"- `{call}`: {markdown(function.__doc__.partition(chr(10) * 2)[0])}"


def arguments(function: Callable[..., Any], without: tuple[str, ...] = ()) -> str:
    call = f"{function.__name__}{signature(function, without)}"
    lines = textwrap.wrap(call, 88, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return "\n".join(["```text", *lines, "```"])


def signature(function: Callable[..., Any], without: tuple[str, ...] = ()) -> str:
    """Names and defaults: types are in the code, for whoever's editor reads them."""
    found = inspect.signature(function)
    kept = [each.replace(annotation=each.empty) for name, each in found.parameters.items() if name not in without]
    kept = [each if isinstance(each.default, LITERAL) else each.replace(default=Ellipsis) for each in kept]
    return str(found.replace(parameters=kept, return_annotation=found.empty)).replace("Ellipsis", "…")


LITERAL = (str, int, float, bool, tuple, type(None), type)


def body_of(value: object) -> str:
    """The docstring as it is, in Markdown."""
    return (inspect.getdoc(value) or "").replace("``", "`").replace("<", "&lt;")


WRITTEN: dict[str, tuple[str, Callable[[], str]]] = {
    "settings": ("settings.md", settings),
    "outcomes": ("outcomes.md", outcomes),
    "tags": ("template-tags.md", template_tags),
    "commands": ("commands.md", commands),
    "checks": ("checks.md", checks),
    "endpoints": ("endpoints.md", endpoints),
    "signals": ("signals.md", signal_docs),
    "metrics": ("metrics.md", metrics),
    "api": ("python-api.md", python_api),
}
"""By section: the page of docs/reference that has it, and what writes it."""


def write() -> None:
    """Write every section anew."""
    for title, (page, make) in WRITTEN.items():
        file = DOCS / "reference" / page
        text = file.read_text("utf-8")
        found = section(title, text)
        file.write_text(text[: found.start(2)] + make() + text[found.end(2) :], "utf-8")
