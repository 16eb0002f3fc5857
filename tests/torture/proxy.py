"""A TCP proxy that breaks connections: between us and a database, at the moments that hurt."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

Result = TypeVar("Result")


class Mode(enum.Enum):
    """What the proxy does to connections."""

    PASS = "passes everything on"
    REFUSE = "resets every connection, old or new"
    CUT = "passes requests on, and resets the connection instead of answering"
    STALL = "passes nothing on, and keeps the connections"


class Proxy:
    """Listens on a free port of 127.0.0.1 and passes on to another. A context manager."""

    port: int

    def __init__(self, target: int) -> None:
        self._target = target
        self._mode = Mode.PASS
        self._flows = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._connection, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        self._do(self._set(Mode.PASS))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @contextlib.contextmanager
    def doing(self, mode: Mode) -> Iterator[None]:
        """Do that for a while."""
        self._do(self._set(mode))
        yield
        self._do(self._set(Mode.PASS))

    def _do(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _set(self, mode: Mode) -> None:
        self._mode = mode
        if mode is Mode.STALL:
            self._flows.clear()
        else:
            self._flows.set()
        if mode is Mode.REFUSE:
            for writer in list(self._open):
                writer.transport.abort()

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._mode is Mode.REFUSE:
                raise ConnectionError
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, to_writer}
        pumps = {
            asyncio.create_task(self._pump(reader, to_writer)),
            asyncio.create_task(self._pump(to_reader, writer, answers=True)),
        }
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open -= {writer, to_writer}
            for pump in pumps:
                pump.cancel()
            for end in (writer, to_writer):
                end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: bool = False) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await self._flows.wait()
                if answers and self._mode is Mode.CUT:
                    writer.transport.abort()
                    return
                writer.write(data)
                await writer.drain()
