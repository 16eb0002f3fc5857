"""Sources that require OAuth, against a small OAuth server that checks what it is asked."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from django.test import override_settings

from segment_fallback.buffers import buffers
from segment_fallback.conf import Settings, Source
from segment_fallback.delivery import transport as module
from segment_fallback.delivery.flush import flush
from segment_fallback.delivery.transport import Transport, Verdict, oauth_manager
from segment_fallback.message import encode
from segment_fallback.models import Lease
from segment_fallback.testing import Answer, LocalSegment

KEY = rsa.generate_private_key(65537, 2048)
PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
BODY = b'{"type":"page","messageId":"1","anonymousId":"a"}'


class TokenServer(ThreadingHTTPServer):
    """Gives out ``token-1``, ``token-2``… to whoever signs with our key. ``answers``: other answers to give first."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), TokenHandler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.given = 0
        self.expires_in: object = 3600
        self.ahead = 0.0
        self.answers: list[tuple[int, object]] = []
        self.claims: list[dict[str, Any]] = []

    def answer(self, form: dict[str, list[str]]) -> tuple[int, object]:
        claims = jwt.decode(
            form["client_assertion"][0],
            KEY.public_key(),
            algorithms=["RS256"],
            audience=self.url,
            options={"verify_iat": False, "verify_exp": False},
        )
        self.claims.append({**claims, "scope": form["scope"], "grant_type": form["grant_type"]})
        if self.answers:
            return self.answers.pop(0)
        self.given += 1
        return 200, {"access_token": f"token-{self.given}", "expires_in": self.expires_in, "token_type": "Bearer"}


class TokenHandler(BaseHTTPRequestHandler):
    server: TokenServer

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        status, answer = self.server.answer(form) if self.path == "/token" else (404, {})
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response_only(status)
        self.send_header("Date", formatdate(time.time() + self.server.ahead, usegmt=True))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that its callers know
        pass


@pytest.fixture
def server() -> Iterator[TokenServer]:
    oauth_manager.cache_clear()
    with TokenServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server
        server.shutdown()
        thread.join()
    oauth_manager.cache_clear()


def oauth(server: TokenServer, **more: Any) -> dict[str, Any]:
    return {"client_id": "me", "client_key": PEM, "key_id": "k1", "auth_server": server.url, "timeout": 5, **more}


def transport(segment: LocalSegment, **arguments: Any) -> Transport:
    return Transport(Source("default", "a-key", segment.url, arguments), Settings(SEND_TIMEOUT=5.0))


def authorizations(segment: LocalSegment) -> list[str]:
    return [{k.lower(): v for k, v in request.headers.items()}["authorization"] for request in segment.requests]


def test_batches_carry_one_token_and_the_write_key(local_segment: LocalSegment, server: TokenServer) -> None:
    for _ in range(2):
        with transport(local_segment, **oauth(server)) as sender:
            assert sender.send([BODY]).verdict is Verdict.DELIVERED
    assert authorizations(local_segment) == ["Bearer token-1"] * 2
    assert {received.write_key for received in local_segment.messages} == {"a-key"}
    (claims,) = server.claims
    assert (claims["iss"], claims["sub"], claims["aud"]) == ("me", "me", server.url)
    assert (claims["scope"], claims["grant_type"]) == (["tracking_api:write"], ["client_credentials"])
    assert claims["exp"] > time.time() > claims["iat"]


@pytest.mark.parametrize("status", [401, 403])
def test_refused_token_is_replaced_at_the_next_send(
    local_segment: LocalSegment, server: TokenServer, status: int
) -> None:
    local_segment.answer_with(Answer(status=status))
    with transport(local_segment, **oauth(server)) as sender:
        assert sender.send([BODY]).verdict is Verdict.MISCONFIGURED
        assert sender.send([BODY]).verdict is Verdict.DELIVERED
    assert authorizations(local_segment) == ["Bearer token-1", "Bearer token-2"]


def test_token_is_renewed_after_half_its_life(local_segment: LocalSegment, server: TokenServer) -> None:
    server.expires_in = 0
    with transport(local_segment, **oauth(server)) as sender:
        for _ in range(2):
            sender.send([BODY])
    assert authorizations(local_segment) == ["Bearer token-1", "Bearer token-2"]


@pytest.mark.parametrize(
    ("status", "answer", "verdict"),
    [
        (500, {}, Verdict.RETRY),
        (503, b"busy", Verdict.RETRY),
        (429, {"error": "slow down"}, Verdict.RETRY),
        (200, {}, Verdict.RETRY),
        (200, [], Verdict.RETRY),
        (200, b"nonsense", Verdict.RETRY),
        (200, {"access_token": None}, Verdict.RETRY),
        (200, {"access_token": "t", "expires_in": "soon"}, Verdict.RETRY),
        (400, {}, Verdict.MISCONFIGURED),
        (400, {"error": "invalid_client", "error_description": "unknown key"}, Verdict.MISCONFIGURED),
        (401, b"", Verdict.MISCONFIGURED),
        (404, {}, Verdict.MISCONFIGURED),
    ],
)
def test_answer_without_a_token_is_a_verdict_and_soon_forgotten(
    local_segment: LocalSegment, server: TokenServer, status: int, answer: object, verdict: Verdict
) -> None:
    server.answers = [(status, answer)]
    with transport(local_segment, **oauth(server)) as sender:
        failure = sender.send([BODY])
        assert (failure.verdict, failure.doubtful) == (verdict, False)
        assert f"no OAuth token: HTTP {status} from 127.0.0.1" in failure.detail
        assert sender.send([BODY]).verdict is Verdict.DELIVERED
    assert len(local_segment.requests) == 1


def test_token_server_that_is_down_is_to_be_tried_again(local_segment: LocalSegment, server: TokenServer) -> None:
    server.shutdown()
    server.server_close()
    with transport(local_segment, **oauth(server)) as sender:
        failure = sender.send([BODY])
    assert failure.verdict is Verdict.RETRY
    assert f"no OAuth token: ConnectionError from {server.url}" in failure.detail
    assert local_segment.requests == []


def test_token_server_that_is_silent_is_waited_for_as_long_as_timeout_says(local_segment: LocalSegment) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        arguments = {"client_id": "me", "client_key": PEM, "key_id": "k1", "auth_server": url, "timeout": 0.2}
        with transport(local_segment, **arguments) as sender:
            failure = sender.send([BODY])
    assert failure.verdict is Verdict.RETRY
    assert "ReadTimeout" in failure.detail


def test_thread_waits_as_long_for_another_that_asks_for_the_token(local_segment: LocalSegment) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        arguments = {"client_id": "me", "client_key": PEM, "key_id": "k1", "auth_server": url, "timeout": 0.2}
        with transport(local_segment, **arguments) as sender:
            with module.oauth_manager(tuple(sorted(arguments.items()))).token_mutex:
                failure = sender.send([BODY])
            after = sender.send([BODY])
    assert (failure.verdict, failure.detail) == (Verdict.RETRY, f"no OAuth token: {url} lets others wait")
    assert "ReadTimeout" in after.detail


def test_key_that_is_none_is_said(local_segment: LocalSegment, server: TokenServer) -> None:
    with transport(local_segment, **oauth(server, client_key="nonsense")) as sender:
        failure = sender.send([BODY])
    assert failure.verdict is Verdict.MISCONFIGURED
    assert "check client_key in OAUTH" in failure.detail
    assert "nonsense" not in failure.detail


def test_next_request_is_dated_by_the_servers_clock(local_segment: LocalSegment, server: TokenServer) -> None:
    server.ahead = 86_400
    server.answers = [(400, {"error": "invalid_request", "error_description": "Token is expired"})]
    with transport(local_segment, **oauth(server)) as sender:
        sender.send([BODY])
        sender.send([BODY])
    wrong, right = (claims["iat"] - time.time() for claims in server.claims)
    assert wrong < 0
    assert right > 80_000


def test_no_thread_outlives_the_send(local_segment: LocalSegment, server: TokenServer) -> None:
    before = set(threading.enumerate())
    with transport(local_segment, **oauth(server)) as sender:
        sender.send([BODY])
    # Beside the two servers' handlers of this request; the SDK's own manager keeps a Timer.
    assert not any(isinstance(thread, threading.Timer) for thread in set(threading.enumerate()) - before)


def test_each_source_has_its_own_tokens(server: TokenServer) -> None:
    one, same, other = (module.oauth_manager(tuple(sorted(oauth(server, key_id=k).items()))) for k in ("a", "a", "b"))
    assert one is same
    assert one is not other


@pytest.mark.django_db
def test_flush_of_a_source_with_oauth_leaves_the_others_on_their_keys(
    local_segment: LocalSegment, server: TokenServer, settings: Any
) -> None:
    sources = {"safe": {"WRITE_KEY": "safe-key", "OAUTH": oauth(server)}}
    server.answers = [(503, {})]
    with override_settings(SEGMENT_FALLBACK={**settings.SEGMENT_FALLBACK, "SOURCES": sources}):
        for source in ("default", "safe"):
            message = {"type": "page", "messageId": source, "anonymousId": "a"}
            buffers["default"].put([encode(message, source=source)])
        report = flush()
        assert (report.delivered, buffers["default"].depth()) == (1, 1)
        assert "no OAuth token: HTTP 503" in report.trouble
        Lease.objects.update(not_before=0)
        assert flush().delivered == 1
    assert [(r.message_id, r.write_key) for r in local_segment.messages] == [
        ("default", "tests-write-key"),
        ("safe", "safe-key"),
    ]
    assert [authorization.split()[0] for authorization in authorizations(local_segment)] == ["Basic", "Bearer"]
