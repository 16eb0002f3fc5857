"""The AWS templates, parsed: CloudFormation's YAML with its tags, and Terraform's HCL."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import hcl2
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CLOUDFORMATION = DEPLOY / "aws" / "cloudformation.yaml"
TERRAFORM = DEPLOY / "aws" / "terraform"


class _Loader(yaml.SafeLoader):
    """With CloudFormation's short tags, as what they stand for: ``!Ref A`` is ``{"Ref": "A"}``."""


def _tagged(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt":
        value = value.split(".")
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _tagged)


def cloudformation() -> dict[str, Any]:
    """The template, each time a copy of the caller's own."""
    return copy.deepcopy(_cloudformation())


@functools.cache
def _cloudformation() -> dict[str, Any]:
    template: dict[str, Any] = yaml.load(CLOUDFORMATION.read_text("utf-8"), Loader=_Loader)  # noqa: S506 - a safe one
    return template


def terraform(kind: str) -> dict[str, dict[str, Any]]:
    """All blocks of a kind: their contents by ``type.name``, or ``name``; of ``locals``, by an empty one.

    Blocks within are lists. What is no literal is an expression: ``"${var.table_name}"``.
    """
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(TERRAFORM.glob("*.tf")):
        for block in copy.deepcopy(_hcl(file).get(kind, [])):
            names: list[str] = []
            for _ in range({"resource": 2, "data": 2, "variable": 1, "output": 1}.get(kind, 0)):
                [(name, block)] = block.items()  # noqa: PLW2901 - the way down to the contents
                names.append(name)
            assert ".".join(names) not in found
            found[".".join(names)] = block
    return found


@functools.cache
def _hcl(file: Path) -> Any:
    return _plain(hcl2.loads(file.read_text("utf-8")))


def _plain(value: Any) -> Any:
    """Without the parser's notes, and with the quotes of texts removed."""
    if isinstance(value, dict):
        return {_plain(name): _plain(inner) for name, inner in value.items() if not name.startswith("__")}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, str) and value.startswith('"'):
        return value[1:-1].replace('\\"', '"')
    return value
