"""Terraform's files are the CloudFormation template, resource by resource and value by value.

Both are parsed; the template is put into Terraform's words, and has to come out as the files are. So neither has a
resource, a permission, an alarm or a default that the other lacks. No AWS provider is to be had here, so what
``terraform validate`` would say of the provider's own rules was not asked.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.deploy.templates import TERRAFORM, cloudformation, terraform

Body = dict[str, Any]

NAMES = {"name_prefix", "bucket_prefix", "alarm_name"}
"""CloudFormation makes these up."""

SAME = {
    "HasTopic": "${local.alarm_topics}",
    "HasReserve": "${var.flush_concurrency == 0 ? -1 : var.flush_concurrency}",
}
"""What stands for a value that depends on a condition."""


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def reference(name: str) -> str:
    """Of ``!Ref``: a parameter, or what it is of a resource."""
    if name == "AWS::StackName":
        return "${var.name}"
    resource = cloudformation()["Resources"].get(name)
    if resource is None:
        return f"${{var.{snake(name)}}}"
    is_policy = resource["Type"] == "AWS::IAM::ManagedPolicy"
    return f"${{{snake(name)}{'.arn' if is_policy else ''}}}"


def attribute(name: str, which: str) -> str:
    """Of ``!GetAtt``."""
    if which != "Arn":
        return f"${{{snake(name)}}}"
    is_log = cloudformation()["Resources"][name]["Type"] == "AWS::Logs::LogGroup"
    return f"${{{snake(name)}.arn}}{':*' if is_log else ''}"


def neutral(value: Any) -> Any:
    """A value of CloudFormation's, with its functions as expressions."""
    if isinstance(value, list):
        return [neutral(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    if "Ref" in value:
        return reference(value["Ref"])
    if "Fn::GetAtt" in value:
        return attribute(*value["Fn::GetAtt"])
    if "Fn::Sub" in value:
        return re.sub(
            r"\$\{([\w:]+)(?:\.(\w+))?}",
            lambda found: attribute(found[1], found[2]) if found[2] else reference(found[1]),
            value["Fn::Sub"],
        )
    if "Fn::If" in value and value["Fn::If"][0] in SAME:
        return SAME[value["Fn::If"][0]]
    return {name: neutral(inner) for name, inner in value.items()}


def expression(value: Any) -> Any:
    """A value of Terraform's, with references as ``neutral`` writes them."""
    if isinstance(value, dict):
        return {name: expression(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [expression(inner) for inner in value]
    if not isinstance(value, str):
        return value
    value = re.sub(r"data\.aws_iam_policy_document\.(\w+)(\[[^]]+])?\.json", document, value)
    return re.sub(r"aws_\w+\.(\w+)(?:\[0])?\.(\w+)", lambda f: f[1] + (".arn" if f[2] == "arn" else ""), value)


def document(found: re.Match[str]) -> str:
    return f"data.{found[1]}{found[2] if found[2] and found[2] != '[0]' else ''}"


def words(properties: Mapping[str, Any]) -> Body:
    """Names as Terraform writes them, where it has the same."""
    return {snake(name): value for name, value in properties.items()}


def table(name: str, p: Any) -> dict[str, Body]:
    [key], lives = p["KeySchema"], p.get("TimeToLiveSpecification")
    return {
        f"aws_dynamodb_table.{name}": {
            "name": p["TableName"],
            "billing_mode": p["BillingMode"],
            "hash_key": key["AttributeName"],
            "deletion_protection_enabled": p["DeletionProtectionEnabled"],
            "attribute": [
                {"name": entry["AttributeName"], "type": entry["AttributeType"]} for entry in p["AttributeDefinitions"]
            ],
            "point_in_time_recovery": [
                {"enabled": p["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"]}
            ],
            **({"ttl": [words(lives)]} if lives else {}),
        }
    }


def bucket(name: str, p: Any) -> dict[str, Body]:
    [encryption] = p["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    default = {"sse_algorithm": encryption["ServerSideEncryptionByDefault"]["SSEAlgorithm"]}
    [ownership] = p["OwnershipControls"]["Rules"]
    rules = [
        {
            "id": rule["Id"],
            "status": rule["Status"],
            "filter": [{"prefix": rule["Prefix"]}],
            **({"expiration": [{"days": rule["ExpirationInDays"]}]} if "ExpirationInDays" in rule else {}),
            **{snake(key): [words(rule[key])] for key in ("AbortIncompleteMultipartUpload",) if key in rule},
        }
        for rule in p["LifecycleConfiguration"]["Rules"]
    ]
    of = {"bucket": f"${{{name}}}"}
    return {
        f"aws_s3_bucket.{name}": {},
        f"aws_s3_bucket_server_side_encryption_configuration.{name}": {
            **of,
            "rule": [{"apply_server_side_encryption_by_default": [default]}],
        },
        f"aws_s3_bucket_public_access_block.{name}": {**of, **words(p["PublicAccessBlockConfiguration"])},
        f"aws_s3_bucket_ownership_controls.{name}": {**of, "rule": [words(ownership)]},
        f"aws_s3_bucket_lifecycle_configuration.{name}": {**of, "rule": rules},
    }


def statements(policy: Any) -> Body:
    return {"statement": [statement(entry) for entry in policy["Statement"]]}


def statement(entry: Any) -> Body:
    many = [name if isinstance(name, list) else [name] for name in (entry["Action"], entry.get("Resource", []))]
    found: Body = {"actions": many[0], **({"resources": many[1]} if many[1] else {})}
    if entry["Effect"] != "Allow":
        found["effect"] = entry["Effect"]
    if "Principal" in entry:
        who = entry["Principal"]
        [(kind, name)] = who.items() if isinstance(who, dict) else [("*", who)]
        found["principals"] = [{"type": kind, "identifiers": [name]}]
    if "Condition" in entry:
        [(test, about)] = entry["Condition"].items()
        [(variable, values)] = about.items()
        values = values if isinstance(values, list) else [values]
        found["condition"] = [{"test": test, "variable": variable, "values": values}]
    return found


def bucket_policy(name: str, p: Any) -> dict[str, Body]:
    return {
        f"aws_s3_bucket_policy.{name}": {"bucket": p["Bucket"], "policy": f"${{data.{name}}}"},
        f"data.{name}": statements(p["PolicyDocument"]),
    }


def queue(name: str, p: Any) -> dict[str, Body]:
    found: Body = {
        "message_retention_seconds": p["MessageRetentionPeriod"],
        "sqs_managed_sse_enabled": p["SqsManagedSseEnabled"],
    }
    if "VisibilityTimeout" in p:
        found["visibility_timeout_seconds"] = p["VisibilityTimeout"]
    if "RedrivePolicy" in p:
        dead, count = p["RedrivePolicy"]["deadLetterTargetArn"], p["RedrivePolicy"]["maxReceiveCount"]
        inner = f"deadLetterTargetArn = {dead[2:-1]}, maxReceiveCount = {count}"
        found["redrive_policy"] = f"${{jsonencode({{{inner}}})}}"
    return {f"aws_sqs_queue.{name}": found}


def managed_policy(name: str, p: Any) -> dict[str, Body]:
    return {
        f"aws_iam_policy.{name}": {"description": p["Description"], "policy": f"${{data.{name}}}"},
        f"data.{name}": statements(p["PolicyDocument"]),
    }


def role(name: str, p: Any) -> dict[str, Body]:
    [assume] = p["AssumeRolePolicyDocument"]["Statement"]
    assert (assume["Effect"], assume["Action"]) == ("Allow", "sts:AssumeRole")
    service = assume["Principal"]["Service"]
    which = service[2:-1] if service.startswith("${") else json.dumps(service)
    found: dict[str, Body] = {f"aws_iam_role.{name}": {"assume_role_policy": f"${{data.assume[{which}]}}"}}
    for attached in p["ManagedPolicyArns"]:
        condition, arn = ("", attached) if isinstance(attached, str) else attached["Fn::If"][:2]
        found[f"aws_iam_role_policy_attachment.{name}_{arn[2:-1].removesuffix('.arn')}"] = {
            "role": f"${{{name}}}",
            "policy_arn": arn,
            **counted(condition),
        }
    for inline in p.get("Policies", []):
        own = inline["PolicyName"]
        found[f"aws_iam_role_policy.{name}_{own}"] = {
            "name": own,
            "role": f"${{{name}}}",
            "policy": f"${{data.{own}}}",
        }
        found[f"data.{own}"] = statements(inline["PolicyDocument"])
    return found


def log_group(name: str, p: Any) -> dict[str, Body]:
    return {f"aws_cloudwatch_log_group.{name}": {"name": p["LogGroupName"], "retention_in_days": p["RetentionInDays"]}}


def function(name: str, p: Any) -> dict[str, Body]:
    code, environment, logging = p.pop("Code"), p.pop("Environment"), p.pop("LoggingConfig")
    return {
        f"aws_lambda_function.{name}": {
            **words(p),
            "s3_bucket": code["S3Bucket"],
            "s3_key": code["S3Key"],
            "environment": [{"variables": environment["Variables"]}],
            "logging_config": [words(logging)],
        }
    }


def as_it_is(kind: str) -> Callable[[str, Any], dict[str, Body]]:
    return lambda name, p: {f"{kind}.{name}": words(p)}


def rule(name: str, p: Any) -> dict[str, Body]:
    [target] = p.pop("Targets")
    target = {"rule": f"${{{name}}}", "target_id": target["Id"], "arn": target["Arn"]}
    own = {**words(p), "name": "${var.name}-flush"}
    return {f"aws_cloudwatch_event_rule.{name}": own, f"aws_cloudwatch_event_target.{name}": target}


def alarm(name: str, p: Any) -> dict[str, Body]:
    dimensions = {entry["Name"]: entry["Value"] for entry in p.pop("Dimensions")}
    topics = {"ok_actions": p.pop("OKActions"), "alarm_actions": p.pop("AlarmActions")}
    return {f"aws_cloudwatch_metric_alarm.{name}": {**words(p), **topics, "dimensions": dimensions}}


CONVERT: dict[str, Callable[[str, Any], dict[str, Body]]] = {
    "AWS::DynamoDB::Table": table,
    "AWS::S3::Bucket": bucket,
    "AWS::S3::BucketPolicy": bucket_policy,
    "AWS::SQS::Queue": queue,
    "AWS::IAM::ManagedPolicy": managed_policy,
    "AWS::IAM::Role": role,
    "AWS::Logs::LogGroup": log_group,
    "AWS::Lambda::Function": function,
    "AWS::Lambda::EventInvokeConfig": as_it_is("aws_lambda_function_event_invoke_config"),
    "AWS::Lambda::Permission": as_it_is("aws_lambda_permission"),
    "AWS::Events::Rule": rule,
    "AWS::CloudWatch::Alarm": alarm,
}


def counted(condition: str) -> Body:
    return {"count": f"${{local.{snake(condition)} ? 1 : 0}}"} if condition else {}


def expected() -> dict[str, Body]:
    """The template in Terraform's words."""
    found: dict[str, Body] = {}
    for logical, resource in cloudformation()["Resources"].items():
        name = snake(logical)
        converted = CONVERT[resource["Type"]](name, neutral(resource["Properties"]))
        for body in converted.values():
            body.update(counted(resource.get("Condition", "")))
        if resource.get("DeletionPolicy") == "Retain":
            next(iter(converted.values()))["lifecycle"] = [{"prevent_destroy": True}]
        found |= converted
    return found


def written() -> dict[str, Body]:
    """Terraform's files, without the names that CloudFormation makes up."""
    documents = {f"data.{key.partition('.')[2]}": body for key, body in terraform("data").items()}
    assert documents.pop("data.assume")["statement"][0]["actions"] == ["sts:AssumeRole"]
    every = {**terraform("resource"), **documents}
    return {key: {n: expression(v) for n, v in body.items() if n not in NAMES} for key, body in every.items()}


def test_resources_are_the_same() -> None:
    assert expected().keys() == written().keys()


@pytest.mark.parametrize("name", expected())
def test_resource_is_the_same(name: str) -> None:
    assert expected()[name] == written()[name]


def test_policies_that_let_services_in_name_the_service_of_each_role() -> None:
    assume = terraform("data")["aws_iam_policy_document.assume"]
    assert assume["for_each"] == '${toset([var.web_service, var.worker_service, "lambda.amazonaws.com"])}'
    [entry] = assume["statement"]
    assert entry["principals"] == [{"type": "Service", "identifiers": ["${each.value}"]}]


def test_conditions_are_the_same() -> None:
    conditions = {snake(name): neutral(value) for name, value in cloudformation()["Conditions"].items()}
    of = {"has_profiles": "profiles_table_name", "has_flush": "code_bucket", "has_topic": "alarm_topic_arn"}
    for name, variable in of.items():
        assert conditions.pop(name) == {"Fn::Not": [{"Fn::Equals": [f"${{var.{variable}}}", ""]}]}
    assert conditions == {"has_reserve": {"Fn::Not": [{"Fn::Equals": ["${var.flush_concurrency}", 0]}]}}
    assert terraform("locals")[""] == {
        "has_profiles": '${var.profiles_table_name != ""}',
        "has_flush": '${var.code_bucket != ""}',
        "alarm_topics": '${var.alarm_topic_arn == "" ? [] : [var.alarm_topic_arn]}',
    }


def test_parameters_are_the_same() -> None:
    variables = terraform("variable")
    del variables["name"]
    types = {"String": "string", "Number": "number"}
    for name, parameter in cloudformation()["Parameters"].items():
        variable = variables.pop(snake(name))
        assert variable["description"] == parameter["Description"]
        assert variable["type"].strip("${}") == types[parameter["Type"]]
        assert variable.get("default") == parameter.get("Default")
        limits = [value for key, value in parameter.items() if key.startswith(("Allowed", "Min", "Max"))]
        for limit in limits:
            assert variable["validation"][0]["condition"].count(str(limit).replace("'", '"')) == 1
        assert ("validation" in variable) == bool(limits)
    assert variables == {}


def test_outputs_are_the_same() -> None:
    outputs = {snake(name): output for name, output in cloudformation()["Outputs"].items()}
    found = terraform("output")
    assert outputs.keys() == found.keys()
    for name, output in outputs.items():
        value = expression(found[name]["value"]).removeprefix("${local.has_flush ? ").removesuffix(" : null}")
        assert found[name]["description"] == output["Description"]
        assert value.strip("${}") == neutral(output["Value"]).strip("${}")


@pytest.mark.parametrize("file", sorted(TERRAFORM.glob("*.tf")), ids=lambda file: file.name)
def test_file_is_formatted(file: Any) -> None:
    """What ``terraform fmt`` asks for, as far as these files need it; where there is one, it is asked."""
    text = file.read_text("utf-8")
    assert text.endswith("\n")
    assert "\n\n\n" not in text + "\n"
    depth = 0
    for line in text.splitlines():
        code = line.strip()
        depth -= code.startswith(("}", ")", "]"))
        assert line == ("  " * depth + code if code else "")
        depth += code.endswith(("{", "(", "["))
    for block in re.findall(r"(?:^ *\w+ += .+\n)+", text, re.MULTILINE):
        assert len({line.index("=") for line in block.splitlines() if not line.endswith("{")}) <= 1
    program = shutil.which("terraform")
    if program is not None:
        environment = {**os.environ, "CHECKPOINT_DISABLE": "1"}
        command = [program, "fmt", "-check", "-diff", file]
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert (found.returncode, found.stdout) == (0, "")
