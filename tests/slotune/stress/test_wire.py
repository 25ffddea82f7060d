"""The cheap HTTP client against a server that answers in every way HTTP/1.1 allows, and in some that it does not."""

from __future__ import annotations

import asyncio

import pytest

from slotune.load.wire import ConnectionLost, NotHttp, Pool

REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"


async def asked(answers: list[list[bytes]], times: int = 1, *, hang_up_after: int = 99) -> tuple[list[tuple[int, bytes]], int]:
    """What `times` requests in a row get, and how many connections that took."""
    connections, served = 0, iter(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for _ in range(hang_up_after):
            try:
                await reader.readuntil(b"\r\n\r\n")
                pieces = next(served)
            except (asyncio.IncompleteReadError, StopIteration):
                break
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.001)
            if b"close" in b"".join(pieces) or b"until the end" in b"".join(pieces):
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    pool = Pool("127.0.0.1", server.sockets[0].getsockname()[1])
    found = []
    try:
        for _ in range(times):
            body = bytearray()
            status = await pool.request(REQUEST, 2.0, body.extend)
            found.append((status, bytes(body)))
            await asyncio.sleep(0.01)
    finally:
        pool.close()
        server.close()
    return found, connections


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"


@pytest.mark.parametrize(
    ("pieces", "status", "body"),
    [
        ([SIZED + b"hello"], 200, b"hello"),
        ([SIZED[:30], SIZED[30:] + b"he", b"llo"], 200, b"hello"),
        ([CHUNKED + b"5\r\nhello\r\n3;x=1\r\n", b"you\r\n0\r\n\r\n"], 200, b"helloyou"),
        ([CHUNKED, b"5\r\nhel", b"lo\r\n0\r", b"\n\r\n"], 200, b"hello"),
        ([CHUNKED + b"2\r\nhe\r\n0\r\nX-Trailer: 1\r\n\r\n"], 200, b"he"),
        ([b"HTTP/1.1 200 OK\r\n\r\nuntil the end"], 200, b"until the end"),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], 204, b""),
        ([b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno"], 503, b"no"),
    ],
)
def test_bodies_end_where_they_end(pieces, status, body):
    found, _ = asyncio.run(asked([pieces]))
    assert found == [(status, body)]


def test_a_connection_is_kept_and_given_up_where_the_server_says_so():
    found, connections = asyncio.run(asked([[SIZED + b"hello"]] * 3, 3))
    assert [status for status, _ in found] == [200] * 3 and connections == 1
    closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    _, connections = asyncio.run(asked([[closing]] * 3, 3))
    assert connections == 3


def test_a_kept_connection_that_the_server_dropped_costs_no_request():
    found, connections = asyncio.run(asked([[SIZED + b"hello"]] * 4, 4, hang_up_after=2))
    assert [status for status, _ in found] == [200] * 4 and connections == 2


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        ([b"SSH-2.0-OpenSSH_9\r\n"], NotHttp),
        ([b"HTTP/1.1 abc\r\n\r\n"], NotHttp),
        ([CHUNKED + b"zz\r\n"], NotHttp),
        ([SIZED + b"he", b""], ConnectionLost),
    ],
)
def test_what_is_no_answer_is_no_answer(pieces, error):
    with pytest.raises(error):
        asyncio.run(asked([pieces], hang_up_after=1))
