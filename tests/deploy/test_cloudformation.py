"""The CloudFormation template: linted, made by moto, and the app run on what was made.

moto 5 makes neither the bucket's policy nor the function's retries nor the alarms, and of a bucket only its name and
encryption; it ignores tables' backups and expiry, and does not attach policies to roles. What it does not make is read
from the template here. It runs no schedule, so the tests invoke the function, and it enforces no IAM policy.
"""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from segment_fallback import aws
from segment_fallback.conf import Settings
from segment_fallback.delivery.archive import read_line
from segment_fallback.management.commands.segment_table import create, policy, tables
from segment_fallback.message import Message
from segment_fallback.profiles.dynamodb import DynamoDBProfiles
from segment_fallback.testing import Answer, LocalSegment
from tests.deploy.conftest import KEYS, REGION, Stack
from tests.deploy.function import Function, metrics
from tests.deploy.templates import CLOUDFORMATION, cloudformation

NOT_BY_MOTO = {"BucketPolicy", "FlushInvocation"} | {
    f"{name}Alarm" for name in ("OldestMessage", "DeadLetters", "FlushFails", "DeadTasks")
}


def test_template_is_clean_to_cfn_lint() -> None:
    program = Path(sys.executable).with_name("cfn-lint")
    command = [str(program), "--include-checks", "I", "--", str(CLOUDFORMATION)]
    lint = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (lint.returncode, lint.stdout) == (0, "")


def test_moto_makes_all_that_it_knows(stack: Stack) -> None:
    assert cloudformation()["Resources"].keys() - stack.resources.keys() == NOT_BY_MOTO


def described(client: Any, table: str) -> dict[str, Any]:
    """A table as the template would have it."""
    found = client.describe_table(TableName=table)["Table"]
    backups = client.describe_continuous_backups(TableName=table)["ContinuousBackupsDescription"]
    recovery = backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"
    lives = client.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    expires = {"AttributeName": lives.get("AttributeName"), "Enabled": lives["TimeToLiveStatus"] == "ENABLED"}
    return {
        "BillingMode": found["BillingModeSummary"]["BillingMode"],
        "KeySchema": found["KeySchema"],
        "AttributeDefinitions": found["AttributeDefinitions"],
        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": recovery},
        **({"TimeToLiveSpecification": expires} if expires["Enabled"] else {}),
    }


def test_tables_are_as_the_command_makes_them(stack: Stack) -> None:
    own = stack.buffer()
    own.table = f"tests-{uuid4().hex}"
    own.state_table = f"{own.table}-state"
    create(own)
    profiles = profiles_of(stack, f"tests-{uuid4().hex}")
    profiles.create_table()
    made = {"MessagesTable": own.table, "StateTable": own.state_table, "ProfilesTable": profiles.table}
    for name, table in made.items():
        properties = cloudformation()["Resources"][name]["Properties"]
        assert properties.pop("DeletionProtectionEnabled") is True
        del properties["TableName"]
        assert properties == described(own.client, table)
    assert tables(stack.buffer()).keys() == {stack.resources["MessagesTable"], stack.resources["StateTable"]}


def profiles_of(stack: Stack, table: str) -> DynamoDBProfiles:
    return DynamoDBProfiles(table=table, region=REGION, endpoint_url=stack.url, client=KEYS)


def statements(stack: Stack, role: str) -> list[dict[str, Any]]:
    """All that the policies of a role allow. moto's account, which the command does not know, is ``*``."""
    iam, found = stack.client("iam"), []
    attached = json.dumps(cloudformation()["Resources"][role]["Properties"]["ManagedPolicyArns"])
    for name in re.findall(r'{"Ref": "(\w+Policy)"}', attached):
        arn = stack.resources[name]
        version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        document = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
        found += document["Statement"]
    text = json.dumps(found).replace("123456789012", "*")
    parsed: list[dict[str, Any]] = json.loads(text)
    return parsed


def on(service: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [statement for statement in found if statement["Action"][0].startswith(f"{service}:")]


def test_roles_may_do_with_tables_what_the_command_prints(stack: Stack) -> None:
    least = policy(stack.buffer())["Statement"]
    profiles = profiles_of(stack, stack.resources["ProfilesTable"]).policy()["Statement"]
    assert on("dynamodb", statements(stack, "WebRole")) == least + profiles
    assert on("dynamodb", statements(stack, "FlushRole")) == least
    assert on("dynamodb", statements(stack, "WorkerRole")) == least


def test_roles_may_do_nothing_else_but_this(stack: Stack) -> None:
    spool = ["s3:DeleteObject", "s3:GetObject", "s3:ListBucket", "s3:PutObject"]
    work = ["ChangeMessageVisibility", "DeleteMessage", "GetQueueAttributes", "ReceiveMessage", "SendMessage"]
    secret = "secretsmanager:GetSecretValue"
    expected = {
        "WebRole": {*spool, secret, "sqs:SendMessage"},
        "FlushRole": {*spool, secret},
        "WorkerRole": {*spool, secret, *(f"sqs:{name}" for name in work)},
    }
    for role, actions in expected.items():
        found = [entry for entry in statements(stack, role) if not entry["Action"][0].startswith("dynamodb:")]
        assert {action for entry in found for action in entry["Action"]} == actions
        assert all(entry["Effect"] == "Allow" and entry["Resource"] not in ("*", ["*"]) for entry in found)
    # Who serves the web never touches the archive; a flush adds to it.
    archive = {role: [e["Action"] for e in statements(stack, role) if "archive/" in str(e)] for role in expected}
    assert archive == {"WebRole": [], "FlushRole": [["s3:PutObject"]], "WorkerRole": [["s3:PutObject"]]}


def test_no_policy_allows_a_wildcard() -> None:
    resources = cloudformation()["Resources"]
    documents = [
        entry["Properties"]["PolicyDocument"] for entry in resources.values() if "ManagedPolicy" in entry["Type"]
    ]
    documents += [entry["PolicyDocument"] for entry in resources["FlushRole"]["Properties"]["Policies"]]
    allowed = [action for document in documents for entry in document["Statement"] for action in entry["Action"]]
    assert len(documents) == 6
    assert not [action for action in allowed if "*" in action]


def test_write_key_is_nowhere_in_what_was_made(stack: Stack) -> None:
    configuration = stack.client("lambda").get_function_configuration(FunctionName=stack.outputs["Function"])
    template = stack.client("cloudformation").get_template(StackName=stack.name)["TemplateBody"]
    told = json.dumps([configuration, template, stack.outputs], default=str)
    assert "the-write-key" not in told
    assert configuration["Environment"]["Variables"]["SEGMENT_WRITE_KEY_SECRET"].startswith("arn:aws:secretsmanager:")


def test_bucket_is_private_encrypted_and_forgets() -> None:
    resources = cloudformation()["Resources"]
    bucket = resources["Bucket"]["Properties"]
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert "SSEAlgorithm': 'AES256" in str(bucket["BucketEncryption"])
    rules = bucket["LifecycleConfiguration"]["Rules"]
    assert [(rule["Prefix"], rule.get("ExpirationInDays")) for rule in rules] == [
        ("archive/", {"Ref": "ArchiveDays"}),
        ("", None),
    ]
    assert cloudformation()["Parameters"]["ArchiveDays"]["Default"] == Settings.ARCHIVE_DAYS
    [denied] = resources["BucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert (denied["Effect"], denied["Action"]) == ("Deny", "s3:*")
    assert denied["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_nothing_that_holds_data_goes_with_the_stack() -> None:
    for entry in cloudformation()["Resources"].values():
        if entry["Type"] in ("AWS::DynamoDB::Table", "AWS::S3::Bucket"):
            assert (entry["DeletionPolicy"], entry["UpdateReplacePolicy"]) == ("Retain", "Retain")


def test_time_of_a_run_fits_lease_budget_and_schedule(settings: Any) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "ARCHIVE": True}
    parameters = cloudformation()["Parameters"]
    assert parameters["FlushTimeout"]["Default"] - aws.margin() >= 60
    assert parameters["FlushTimeout"]["MinValue"] - aws.margin() >= Settings.FLUSH_BUDGET
    assert parameters["FlushSchedule"]["Default"] == "rate(1 minute)"
    lease = 4 * Settings.SEND_TIMEOUT
    assert lease <= 60  # who was killed holds up one run
    assert parameters["MaxAge"]["Default"] == Settings.HEALTH_MAX_AGE
    visibility = cloudformation()["Resources"]["Queue"]["Properties"]["VisibilityTimeout"]
    assert visibility > Settings.FLUSH_BUDGET + 2 * Settings.SEND_TIMEOUT


def test_queue_keeps_what_fails_again_and_again(stack: Stack) -> None:
    sqs = stack.client("sqs")
    queue = stack.queue("Queue")
    sqs.send_message(QueueUrl=queue, MessageBody="a task")
    for _ in range(5):
        [message] = sqs.receive_message(QueueUrl=queue)["Messages"]
        visible = {"ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 0}
        sqs.change_message_visibility(QueueUrl=queue, **visible)
    assert "Messages" not in sqs.receive_message(QueueUrl=queue)
    [dead] = sqs.receive_message(QueueUrl=stack.queue("DeadTasksQueue"))["Messages"]
    assert dead["Body"] == "a task"


def test_schedule_starts_the_handler(stack: Stack) -> None:
    function = stack.client("lambda").get_function_configuration(FunctionName=stack.outputs["Function"])
    assert (function["Handler"], function["Timeout"]) == ("segment_fallback.aws.flush_handler", 120)
    events = stack.client("events")
    [name] = events.list_rule_names_by_target(TargetArn=function["FunctionArn"])["RuleNames"]
    rule = events.describe_rule(Name=name)
    assert (rule["ScheduleExpression"], rule["State"]) == ("rate(1 minute)", "ENABLED")
    allowed = json.loads(stack.client("lambda").get_policy(FunctionName=stack.outputs["Function"])["Policy"])
    assert [statement["Principal"]["Service"] for statement in allowed["Statement"]] == ["events.amazonaws.com"]


@pytest.fixture
def segment() -> Iterator[LocalSegment]:
    with LocalSegment(write_keys=["the-write-key"]) as segment:
        yield segment


@pytest.mark.parametrize("way", ["by_mangum", "as_by_zappa"])
def test_app_runs_on_what_was_made(stack: Stack, segment: LocalSegment, way: str) -> None:
    """A page's event by a web function, then the scheduled one: Segment, archive, acknowledged, measured."""
    environment = stack.environment(SITE_SEGMENT=segment.url)
    buffer = stack.buffer()
    with Function(f"tests.deploy.site.{way}", environment) as web:
        for number in ("7", "8"):
            answer = web.invoke(gateway_event(f"/order/{number}/"))
            assert answer["result"]["statusCode"] == 200
            # Frozen now: what was tracked "after the response" is in the table all the same.
            assert buffer.depth() == int(number) - 6
    buffer.put([Message(way, b'{"type":"page","messageId":"%s","anonymousId":"a"}' % way.encode())])
    handler = stack.client("lambda").get_function_configuration(FunctionName=stack.outputs["Function"])["Handler"]
    with Function(handler, environment) as function:
        answer = function.invoke({"detail-type": "Scheduled Event"}, timeout=120)
    assert answer["result"]["delivered"] == 3
    assert sorted(str(received.message.get("event")) for received in segment.messages) == [
        "None",
        "Order Completed",
        "Order Completed",
    ]
    assert buffer.depth() == 0
    assert {str(received.message_id) for received in segment.messages} <= archived(stack)
    measured = metrics(answer)
    assert (measured["Delivered"], measured["OldestMessageAge"], measured["Waiting"]) == (3, 0, 0)
    watched = {entry["Properties"]["MetricName"] for entry in alarms() if is_ours(entry)}
    assert watched == {"OldestMessageAge", "DeadLetters"} <= measured.keys()


def test_app_does_not_read_the_table_to_say_how_long_segment_has_failed(stack: Stack, segment: LocalSegment) -> None:
    """Its leases tell: while Segment is down the table may be large, and to count it each minute would be dear."""
    buffer, environment = stack.buffer(), stack.environment(SITE_SEGMENT=segment.url)
    with Function("segment_fallback.aws.flush_handler", environment) as function:
        function.invoke()
        segment.answer_with(Answer(status=503), times=None)
        buffer.put([Message("waits", b'{"type":"page","messageId":"waits","anonymousId":"a"}')])
        failed = function.invoke()
        segment.answer_normally()
        assert failed["result"]["trouble"].startswith("HTTP 503")
        assert 0 < metrics(failed)["OldestMessageAge"] < 60
        assert "Waiting" not in metrics(failed)
        deadline = time.monotonic() + 30
        while buffer.depth() and time.monotonic() < deadline:
            later = function.invoke()
    assert metrics(later)["Waiting"] == 0
    assert [received.message_id for received in segment.messages] == ["waits"]


def test_app_keeps_in_the_bucket_what_the_tables_do_not_take(stack: Stack, segment: LocalSegment) -> None:
    down = stack.environment(SITE_SEGMENT=segment.url, SEGMENT_TABLE="no-such-table")
    with Function("tests.deploy.site.by_mangum", down) as web:
        assert web.invoke(gateway_event("/order/9/"))["result"]["statusCode"] == 200
    s3 = stack.client("s3")
    listed = {"Bucket": stack.outputs["Bucket"], "Prefix": "spool/"}
    assert s3.list_objects_v2(**listed)["KeyCount"] == 1
    with Function("segment_fallback.aws.flush_handler", stack.environment(SITE_SEGMENT=segment.url)) as flush:
        assert flush.invoke()["result"]["unspooled"] == 1
    assert [received.message["properties"] for received in segment.messages] == [{"number": "9"}]
    assert s3.list_objects_v2(**listed)["KeyCount"] == 0


def gateway_event(path: str) -> dict[str, Any]:
    """An event of API Gateway's HTTP API, which Mangum makes a request of."""
    http = {"method": "GET", "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "tests"}
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"host": "shop.example"},
        "requestContext": {"http": http, "domainName": "shop.example", "stage": "$default"},
        "isBase64Encoded": False,
    }


def archived(stack: Stack) -> set[str]:
    """The messageIds in the bucket's archive."""
    s3, bucket = stack.client("s3"), stack.outputs["Bucket"]
    keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket, Prefix="archive/")["Contents"]]
    contents = [gzip.decompress(s3.get_object(Bucket=bucket, Key=key)["Body"].read()) for key in keys]
    lines = [line for content in contents for line in content.splitlines()]
    return {str(read_line(line).message["messageId"]) for line in lines}


def alarms() -> list[dict[str, Any]]:
    return [entry for entry in cloudformation()["Resources"].values() if entry["Type"] == "AWS::CloudWatch::Alarm"]


def is_ours(alarm: dict[str, Any]) -> bool:
    return bool(alarm["Properties"]["Namespace"] == aws.NAMESPACE)


def test_alarms_are_about_what_the_function_says(stack: Stack) -> None:
    about_function = {"Name": "FunctionName", "Value": {"Ref": "FlushFunction"}}
    for alarm in alarms():
        properties = alarm["Properties"]
        if is_ours(alarm) or properties["Namespace"] == "AWS/Lambda":
            assert properties["Dimensions"] == [about_function]
            assert alarm["Condition"] == "HasFlush"
    resources = cloudformation()["Resources"]
    assert resources["OldestMessageAlarm"]["Properties"]["TreatMissingData"] == "breaching"


def test_cloudwatch_takes_the_alarms(stack: Stack) -> None:
    """What moto's CloudFormation does not make, its CloudWatch takes by call: names and values are valid."""
    cloudwatch = stack.client("cloudwatch")
    values = {"FlushFunction": stack.outputs["Function"], "MaxAge": 600}
    for name, entry in cloudformation()["Resources"].items():
        if entry["Type"] != "AWS::CloudWatch::Alarm":
            continue
        properties = {key: value for key, value in entry["Properties"].items() if not key.endswith("Actions")}
        text = json.dumps(properties)
        for parameter, value in values.items():
            text = text.replace(json.dumps({"Ref": parameter}), json.dumps(value))
        text = text.replace(json.dumps({"Fn::GetAtt": ["DeadTasksQueue", "QueueName"]}), '"dead-tasks"')
        cloudwatch.put_metric_alarm(AlarmName=f"{stack.name}-{name}", **json.loads(text))
    found = cloudwatch.describe_alarms(AlarmNamePrefix=stack.name)["MetricAlarms"]
    assert len(found) == 4
