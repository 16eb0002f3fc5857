"""The HTTP server below the local Segment: keep-alive, a thread a connection, a stop that closes all."""

from __future__ import annotations

import logging
import socket
import socketserver
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler
from typing import Any

from segment_fallback.testing.answers import Answer, refusal
from segment_fallback.testing.tracking_api import MAX_BODY

logger = logging.getLogger(__name__)

Respond = Callable[[str, str, Message, bytes, int], Answer]
"""Answer a request, given method, target, headers, body (at most MAX_BODY + 1 bytes) and its full size."""

_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, X-Retry-Count",
}
CONTROL = "/_local/"
"""Path prefix of the control API, which pages of other origins may not read."""


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Serves from its own threads, all of them daemons, from construction to `stop`."""

    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, port: int, respond: Respond, host: str = "127.0.0.1") -> None:
        super().__init__((host, port), _Handler)
        self.respond = respond
        self.port: int = self.server_address[1]
        self.stopping = threading.Event()
        self._open: dict[Any, threading.Thread] = {}
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close every connection, the hanging ones too, and wait for their threads."""
        self.stopping.set()
        self.shutdown()
        self._thread.join()
        self.server_close()
        connections = self._open.copy()
        for connection in connections:
            with suppress(OSError):  # its thread may just have closed it
                connection.shutdown(socket.SHUT_RDWR)
        for thread in connections.values():
            thread.join(timeout=5)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread that `stop` knows of."""
        serve = self.process_request_thread
        thread = threading.Thread(target=serve, args=(request, client_address), daemon=True)
        self._open[request] = thread
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        """Close a connection; without the orderly end of the base class, which would precede a reset."""
        self.close_request(request)
        self._open.pop(request, None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong in a handler, unless it is only that the client has left."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            logger.exception("the local Segment could not answer")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "LocalSegment"
    sys_version = ""
    disable_nagle_algorithm = True  # head and body are two writes: with it, each answer would wait for an ACK
    server: Server

    def do_GET(self) -> None:
        """Read the request, ask for the answer, give it."""
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdecimal():
            self.close_connection = True  # where the next request begins is unknown
            self._write(refusal(411, "the request must have a Content-Length"))
            return
        size = int(length)
        body = self.rfile.read(min(size, MAX_BODY + 1))
        # The rest is read too: an answer to a client that still writes would be lost in a reset.
        drained = all(self.rfile.read(min(65_536, size - at)) for at in range(len(body), size, 65_536))
        if not drained:
            self.close_connection = True  # the client left in the middle
            return
        answer = self.server.respond(self.command, self.path, self.headers, body, size)
        if (answer.delay and self.server.stopping.wait(answer.delay)) or answer.close:
            self._reset()
        else:
            self._write(answer)

    do_HEAD = do_POST = do_DELETE = do_OPTIONS = do_GET  # noqa: N815

    def _write(self, answer: Answer) -> None:
        body = answer.body.encode() if isinstance(answer.body, str) else answer.body
        cors = {} if self.path.startswith(CONTROL) else _CORS
        self.send_response(answer.status or 200)
        for name, value in {**cors, **answer.headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log to `logging`, at debug level, instead of standard error."""
        logger.debug(format, *args)
