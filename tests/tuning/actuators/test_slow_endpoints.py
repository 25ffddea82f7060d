"""A server that sends a byte now and then holds nobody: one deadline for a whole call, whatever part of it drips."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from tests.fakes.actuators import FakeConnections, FakeTime, service
from tuning.actuators.http_config import HttpConfig
from tuning.errors import ControlRefused, ControlUnreachable, OutcomeUnknown
from tuning.model import Change

pytestmark = [pytest.mark.server, pytest.mark.timeout(20)]
UP = Change(lever="batch_size", old={"batch_size": 1}, new={"batch_size": 8})
GOOD = b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"batch_size": 1}'
DRIPS = {
    "nothing": b"",
    "the headers": b"HTTP/1.1 200 OK\r\n",
    "the body": b"HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n",
    "the body of a redirect": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 4000000\r\n\r\n",
    "the body of an error": b"HTTP/1.1 503 Later\r\nContent-Length: 4000000\r\n\r\n",
}


@contextmanager
def talking(answer: Callable[[socket.socket, bytes], None]) -> Iterator[str]:
    """A loopback server whose every connection is handed to `answer` with the request's head."""
    listener = socket.create_server(("127.0.0.1", 0))

    def talk(peer: socket.socket) -> None:
        with peer, suppress(OSError):
            answer(peer, peer.recv(65536))

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def lever(url: str) -> HttpConfig:
    clock = FakeTime()
    return HttpConfig(FakeConnections({"c": url}), clock.clock, clock.sleep)


RANKER = service("batch_size", "http_config", connection="c", request_timeout_s=0.3)


def drip(peer: socket.socket, start: bytes) -> None:
    peer.sendall(start)
    while True:
        peer.sendall(b"x")
        time.sleep(0.02)


@pytest.mark.parametrize("what", DRIPS)
def test_a_read_ends_at_its_deadline(what: str) -> None:
    with (
        talking(lambda peer, _: drip(peer, DRIPS[what])) as url,
        pytest.raises(ControlUnreachable, match=r"no answer within 0\.3 s"),
    ):
        lever(url).read(RANKER)


def test_a_change_whose_answer_drips_is_unknown() -> None:
    def answer(peer: socket.socket, head: bytes) -> None:
        if head.startswith(b"GET"):
            peer.sendall(GOOD)
        else:
            drip(peer, DRIPS["the body"])

    with talking(answer) as url, pytest.raises(OutcomeUnknown, match=r"no answer within 0\.3 s after the request was"):
        lever(url).apply(RANKER, UP, key="k")


@pytest.mark.parametrize("head", [DRIPS["the body"], b"HTTP/1.1 200 OK\r\n\r\n"], ids=["a length", "no length"])
def test_a_body_without_end_is_cut_off(head: bytes) -> None:
    def flood(peer: socket.socket, _: bytes) -> None:
        peer.sendall(head.replace(b"4000000", b"900000000"))
        while True:
            peer.sendall(b" " * 65536)

    patient = service("batch_size", "http_config", connection="c", request_timeout_s=15.0)
    with talking(flood) as url, pytest.raises(ControlRefused, match="more than 4 MiB: this is no control endpoint"):
        lever(url).read(patient)


def test_what_a_yes_says_beside_it_does_not_matter() -> None:
    """The POST lands, and its answer is garbage: what the server shows then counts."""
    config = {"size": b"1"}

    def answer(peer: socket.socket, head: bytes) -> None:
        if head.startswith(b"GET"):
            peer.sendall(GOOD.replace(b" 1}", b" " + config["size"] + b"}"))
        else:
            config["size"] = b"8"
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>")

    with talking(answer) as url:
        assert lever(url).apply(RANKER, UP, key="k").after == {"batch_size": 8}


def test_a_redirected_change_is_not_followed_and_not_believed() -> None:
    def answer(peer: socket.socket, head: bytes) -> None:
        peer.sendall(
            GOOD
            if head.startswith(b"GET")
            else b"HTTP/1.1 307 Go\r\nLocation: http://[bad\r\nContent-Length: 0\r\n\r\n"
        )

    with talking(answer) as url, pytest.raises(OutcomeUnknown, match="answered 307; the read-back still shows"):
        lever(url).apply(RANKER, UP, key="k")


def test_the_calls_of_one_change_end_together_and_what_was_changed_is_put_back() -> None:
    """Five replicas, each of which takes nearly as long as one call may: together they may take 0.8 s."""
    shown = dict.fromkeys("abcde", 1)
    posts: list[tuple[str, int]] = []

    def answers(name: str) -> Callable[[socket.socket, bytes], None]:
        def answer(peer: socket.socket, head: bytes) -> None:
            if head.startswith(b"POST"):
                body = head.partition(b"\r\n\r\n")[2] or peer.recv(65536)
                shown[name] = json.loads(body)["batch_size"]
                posts.append((name, shown[name]))
                time.sleep(0.2 if shown[name] > 1 else 0.0)
            said = b'{"batch_size": %d}' % shown[name]
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said) + said)

        return answer

    with ExitStack() as stack:
        urls = {name: stack.enter_context(talking(answers(name))) for name in shown}
        clock = FakeTime()
        many = HttpConfig(FakeConnections(urls), clock.clock, clock.sleep)
        fleet = service("batch_size", "http_config", connection="a", endpoints=["b", "c", "d", "e"],
                        request_timeout_s=0.3, control_timeout_s=0.8)  # fmt: skip
        begun_s = time.monotonic()
        with pytest.raises(ControlUnreachable, match=r"took 0\.8 s in all \(safety.control_timeout\)"):
            many.apply(fleet, UP, key="k")
        assert time.monotonic() - begun_s < 2.0
    assert [size for _, size in posts].count(8) in (1, 2, 3), "not all of them"
    assert set(shown.values()) == {1}
