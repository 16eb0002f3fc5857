"""What an edge has to know of variations: the cookies, and every value that is genuine. They are few, and no secret.

A visitor may send any cookie. Here is all that an edge lets through, so a forged one finds the default's copy, and
makes no copy of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from segment_fallback.profiles.variations import Experiment

HEAD = "Printed by `manage.py segment_variations --{edge}`. Print it again when variations or SECRET_KEY change."


def known(experiments: Sequence[Experiment]) -> dict[str, list[str]]:
    """The values of each cookie."""
    return {experiment.cookie: list(experiment.values) for experiment in experiments}


def varnish(experiments: Sequence[Experiment], only: str) -> str:
    """VCL to include above that of docs/edge/varnish.vcl: its subs run before those of the same names there.

    ``only``: a regular expression of the paths that vary.
    """
    condition = f'if (regsub(req.url, "[?].*$", "") ~ "{_quoted(only or "^/")}") {{'
    lines = [
        f"# {HEAD.format(edge='varnish')}",
        "sub vcl_recv {",
        '    set req.http.X-Variations = "";',
        f"    {condition}",
    ]
    for cookie, values in known(experiments).items():
        for number, value in enumerate(values):
            word = "elsif" if number else "if"
            lines += [
                f'        {word} (req.http.Cookie ~ "(^|;\\s*){cookie}={re.escape(value)}\\s*(;|$)") {{',
                f'            set req.http.X-Variations = req.http.X-Variations + "{cookie}={value}; ";',
                "        }",
            ]
    lines += ["    }", "}", _VARNISH.strip()]
    return "\n".join(lines)


_VARNISH = """
sub vcl_pass {
    unset req.http.X-Variations;  # what is passed has all its cookies
}
sub vcl_hash {
    hash_data(req.http.X-Variations);
}
sub vcl_backend_fetch {
    if (bereq.http.X-Variations) {
        set bereq.http.Cookie = bereq.http.X-Variations;
    }
    unset bereq.http.X-Variations;
}
"""


def nginx(experiments: Sequence[Experiment], only: str) -> str:
    """Maps to put in place of that of ``$segment_variations`` in docs/edge/nginx.conf."""
    lines = [f"# {HEAD.format(edge='nginx')}"]
    pattern = only.replace("\\", "\\\\").replace('"', '\\"')
    lines.append(f'map $uri $varies {{ default 0; "~{pattern}" 1; }}' if only else 'map "" $varies { default 1; }')
    for number, (cookie, values) in enumerate(known(experiments).items(), 1):
        # Regular expressions, because texts are compared whatever their case, and may be too long for nginx's table.
        found = " ".join(f'"~^1 {re.escape(value)}$" "{cookie}={value}; ";' for value in values)
        lines.append(f'map "$varies $cookie_{cookie}" $variation_{number} {{ default ""; {found} }}')
    every = "".join(f"$variation_{number}" for number in range(1, len(experiments) + 1))
    lines.append(f'map "" $segment_variations {{ default "{every}"; }}')
    return "\n".join(lines)


def cloudfront(experiments: Sequence[Experiment], only: str) -> str:
    """The constants at the head of docs/edge/cloudfront-variations.js."""
    head = f"// {HEAD.format(edge='cloudfront')}"
    return f"{head}\nvar KNOWN = {json.dumps(known(experiments))};\nvar ONLY = new RegExp({json.dumps(only)});"


def cloudflare(experiments: Sequence[Experiment], only: str) -> str:
    """Cache Rules, to go behind the first of docs/edge/cloudflare.json: the last that matches wins."""
    rules = []
    for cookie, values in known(experiments).items():
        chosen = " or ".join(f'http.request.cookies["{cookie}"][0] eq "{value}"' for value in values)
        where = f" and http.request.uri.path matches {json.dumps(only)}" if only else ""
        rules.append(
            {
                "description": f"A copy for each variation: {cookie}",
                "expression": f"({chosen}){where}",
                "action": "set_cache_settings",
                "action_parameters": {"cache_key": {"custom_key": {"cookie": {"include": [cookie]}}}},
            }
        )
    return json.dumps({"rules": rules}, indent=2)


def _quoted(pattern: str) -> str:
    """Inside of a string of VCL, which knows no escape but for a percent sign and two digits."""
    if '"' in pattern or "\n" in pattern:
        raise ValueError("a regular expression for VCL has no quotes and no line breaks")
    return pattern


EDGES = {"varnish": varnish, "nginx": nginx, "cloudfront": cloudfront, "cloudflare": cloudflare}
