"""``python -m tests.blockers FOLDER``: which of our URLs and cookies the blockers' lists in a folder match."""

from __future__ import annotations

import argparse
import os
import random
import sys
from pathlib import Path

import django


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.blockers", description=__doc__)
    parser.add_argument("folder", type=Path, help="of lists: every .txt below it is read")
    parser.add_argument("--sites", type=int, default=2_000, help="each of a secret of its own; default %(default)s")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="default: a random one, printed")  # noqa: S311
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()

    from tests.blockers import engine, ours

    requests, cookies = ours.sites(options.sites, options.seed)
    answer = engine.ask(options.folder, requests, [*cookies, *ours.fixed_cookies()])
    write = sys.stdout.write
    write(f"{len(answer.lists)} lists, {answer.rules:,} rules: {', '.join(answer.lists)}\n")
    write(f"{options.sites:,} sites (--seed {options.seed}), {len(requests):,} URLs as {', '.join(engine.TYPES)}\n")
    for url, kind, rule in answer.requests:
        write(f"URL     {kind:<15} {url[:120]}\n        by {rule}\n")
    for name, rule in answer.cookies:
        known = "" if name not in ours.KNOWN else " (known)"
        write(f"cookie  {name} by {rule}{known}\n")
    unknown = [name for name, _ in answer.cookies if name not in ours.KNOWN]
    write(f"{len(answer.urls)} URLs and {len(unknown)} cookies matched that should not\n")
    return bool(answer.urls or unknown)


if __name__ == "__main__":
    sys.exit(main())
