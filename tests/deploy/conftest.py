"""The stack, made once by moto's CloudFormation."""

from __future__ import annotations

import io
import os
import zipfile
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import boto3
import pytest

from segment_fallback.buffers.dynamodb import DynamoDBBuffer
from tests.deploy.templates import CLOUDFORMATION

REGION = "eu-central-1"
KEYS: dict[str, Any] = {"aws_access_key_id": "tests", "aws_secret_access_key": "tests"}


@dataclass(frozen=True)
class Stack:
    """What CloudFormation has made, by moto at ``url``. ``resources``: physical names by the template's."""

    name: str
    url: str
    resources: dict[str, str]
    outputs: dict[str, str]

    def client(self, service: str) -> Any:
        session: Any = boto3.Session(**KEYS, region_name=REGION)
        return session.client(service, endpoint_url=self.url)

    def queue(self, name: str) -> str:
        """The URL of a queue: CloudFormation's names AWS's own host."""
        return self.url + urlsplit(self.resources[name]).path

    def buffer(self) -> DynamoDBBuffer:
        return DynamoDBBuffer(table=self.outputs["Table"], region=REGION, endpoint_url=self.url, client=KEYS)

    def environment(self, **own: str) -> dict[str, str]:
        """Of the scheduled flush, and of a web function beside it: what the stack gave it, and the way to moto."""
        function = self.client("lambda").get_function_configuration(FunctionName=self.outputs["Function"])
        ways = {"AWS_ENDPOINT_URL": self.url, "AWS_DEFAULT_REGION": REGION}
        keys = {name.upper(): value for name, value in KEYS.items()}
        return {**os.environ, **ways, **keys, **function["Environment"]["Variables"], **own}


@pytest.fixture(scope="session")
def stack(moto_url: str) -> Stack:
    session = boto3.Session(**KEYS, region_name=REGION)
    name = f"shop-{uuid4().hex[:8]}"
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("settings.py", "")
    s3 = session.client("s3", endpoint_url=moto_url)
    s3.create_bucket(Bucket=f"{name}-code", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket=f"{name}-code", Key="site.zip", Body=code.getvalue())
    secrets = session.client("secretsmanager", endpoint_url=moto_url)
    secret = secrets.create_secret(Name=f"{name}/write-key", SecretString="the-write-key")
    given = {
        "TableName": f"{name}-messages",
        "ProfilesTableName": f"{name}-profiles",
        "WriteKeySecretArn": secret["ARN"],
        "CodeBucket": f"{name}-code",
        "SettingsModule": "tests.deploy.site",
    }
    client = session.client("cloudformation", endpoint_url=moto_url)
    client.create_stack(
        StackName=name,
        TemplateBody=CLOUDFORMATION.read_text("utf-8"),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    client.get_waiter("stack_create_complete").wait(StackName=name)
    # What moto does not know has no names there.
    made = [m for m in client.describe_stack_resources(StackName=name)["StackResources"] if "LogicalResourceId" in m]
    outputs = client.describe_stacks(StackName=name)["Stacks"][0]["Outputs"]
    return Stack(
        name,
        moto_url,
        {entry["LogicalResourceId"]: entry.get("PhysicalResourceId", "") for entry in made},
        {entry["OutputKey"]: entry["OutputValue"] for entry in outputs},
    )
