"""What a sync attempt waits on is ended when nobody waits for the attempt: that request's connection, and never another's.

Over real clients and a real server where the promise is kept to a user, over httpx alone where the moment matters.
"""

import asyncio
import contextvars
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import httpx
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_openai import ChatOpenAI

from langchain_resilient import Provider, Timeouts, capture_decisions
from langchain_resilient.engine.drive.threads import LINE, THREADS, HungUp, Line, PumpedStream, Running
from langchain_resilient.engine.errors import AttemptTimeoutError
from langchain_resilient.hanging_up import _Backend, _Stream, let_hang_up
from langchain_resilient.testing import Fault, FaultServer, ScriptedChatModel
from tests.clients import ANSWER, MADE, WIRES, instance, made, resilient, scripted

SHORT = 0.2  # seconds: a limit that is meant to fire
LONG = 20.0  # seconds: one that is not
SOON = 5.0  # seconds that a busy machine is given for what takes none
NEVER = 0.1  # seconds after which what has not happened is taken not to


def until(condition: Callable[[], Any]) -> bool:
    """Whether something comes true soon."""
    end = time.monotonic() + SOON
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return bool(condition())


@pytest.fixture
def server() -> Iterator[FaultServer]:
    """A server of one's own: clients pool their connections by address."""
    with FaultServer() as running:
        yield running


# ── The chat model ───────────────────────────────────────────────────────────────────────────────────────────────────


def left(server: FaultServer) -> bool:
    """Whether the server's last request ended by the client's leaving."""
    request = server.requests[-1]
    return request.wait_ended(SOON) and request.disconnected


@pytest.mark.e2e
@pytest.mark.parametrize("how", MADE)
@pytest.mark.parametrize("wire", WIRES)
def test_a_call_that_outlives_its_limit(server: FaultServer, wire: str, how: str):
    """An unstreamed sync call is ended at its limit, is one failure of the provider's, and leaves no thread behind."""
    model = resilient(made(how, server, wire, timeout=LONG), scripted("two"), timeouts=Timeouts(response=SHORT))
    target = model._engine.policy.targets[0]
    for _ in range(3):  # a timeout of a provider that has not answered yet counts for nothing
        model.invoke("hi")
    server.always(Fault.hang())
    with capture_decisions() as decisions:
        assert model.invoke("hi").text == ANSWER
    assert left(server)
    assert [(item.kind, item.limit) for item in decisions[0].attempts] == [("timeout", "response"), ("ok", None)]
    assert until(lambda: THREADS.abandoned(target.route) == 0)
    status = model.status()[target.name]
    assert (status["failures_in_a_row"], status["in_flight"], status["circuit"]) == (1, 0, "closed")


@pytest.mark.e2e
def test_who_else_uses_the_client_is_not_concerned(server: FaultServer):
    """The same client answers the next attempt, and its owner's own calls, after one was hung up."""
    client = instance(server, "openai", timeout=LONG)
    server.schedule(Fault.hang())
    model = resilient(client, scripted("two"), timeouts=Timeouts(response=SHORT))
    assert model.invoke("hi").text == ANSWER
    assert client.invoke("hi").text == "Hello from the fault server."
    assert model.invoke("hi").text == "Hello from the fault server."
    assert [request.disconnected for request in server.requests] == [True, False, False]


@pytest.mark.e2e
@pytest.mark.parametrize("wire", ["openai", "anthropic"])
def test_a_client_that_tries_again_does_not(server: FaultServer, wire: str):
    """A client whose own retries are on is out of them too: one request reached the provider, and its thread is free."""
    server.always(Fault.hang())
    with pytest.warns(UserWarning, match="retries by itself"):
        model = resilient(instance(server, wire, timeout=LONG, max_retries=5), timeouts=Timeouts(response=SHORT))
    with pytest.raises(AttemptTimeoutError):
        model.invoke("hi")
    assert until(lambda: THREADS.abandoned(model._engine.policy.targets[0].route) == 0)
    assert server.count == 1


@pytest.mark.e2e
@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_a_model_within_a_model(server: FaultServer, way: str):
    """A resilient model that another one calls is hung up with it, and asks nobody else then."""
    server.always(Fault.hang())
    with FaultServer() as second:
        inner = resilient(instance(server, "openai", timeout=LONG), instance(second, "openai", "two"))
        outer = resilient(
            Provider(inner, name="inner"), scripted("two"), timeouts=Timeouts(response=SHORT, first_token=SHORT)
        )
        texts = [outer.invoke("hi").text] if way == "invoke" else [chunk.text for chunk in outer.stream("hi")]
        assert "".join(texts) == ANSWER
        assert left(server) and second.count == 0
    assert until(lambda: inner.status()["openai/one"]["in_flight"] == 0)
    assert inner.status()["openai/one"]["failures_in_a_row"] == 0


class Mumbling(ScriptedChatModel):
    """A model that is no HTTP client and says nothing, for ever."""

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        while True:
            time.sleep(0.005)
            yield ChatGenerationChunk(message=AIMessageChunk(""))


@pytest.mark.e2e
def test_a_stream_that_only_mumbles_ends():
    """What can't be hung up ends with its next chunk, even before the first content, where nobody has closed it."""
    model = resilient(Mumbling(model_name="one"), scripted("two"), timeouts=Timeouts(first_token=SHORT))
    assert "".join(chunk.text for chunk in model.stream("hi")) == ANSWER
    assert until(lambda: THREADS.abandoned(model._engine.policy.targets[0].route) == 0)


# ── One connection ───────────────────────────────────────────────────────────────────────────────────────────────────


class Listener:
    """A server that does nothing by itself: its connections are the test's to answer."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(SOON)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.secure_url = self.url.replace("http", "https")

    def accept(self) -> socket.socket:
        connection, _ = self._socket.accept()
        connection.settimeout(SOON)
        return connection

    def nobody_comes(self) -> bool:
        self._socket.settimeout(NEVER)
        try:
            self._socket.accept()
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    """A server in the test's hands."""
    opened = Listener()
    yield opened
    opened.close()


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    """An HTTP client with one connection, as a model would have it."""
    with httpx.Client(
        timeout=LONG, limits=httpx.Limits(max_connections=1), verify=tls(ssl.PROTOCOL_TLS_CLIENT)
    ) as opened:
        assert let_hang_up(SimpleNamespace(_client=opened)) == 1
        yield opened


def tls(side: int) -> ssl.SSLContext:
    """TLS without certificates."""
    context = ssl.SSLContext(side)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AECDH:@SECLEVEL=0")
    return context


class Asking(threading.Thread):
    """Does something in a thread, on a line."""

    def __init__(self, line: Line, work: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.line, self.work, self.answer = line, work, None
        self.start()

    def run(self) -> None:
        LINE.set(self.line)
        try:
            self.answer = self.work()
        except BaseException as error:
            self.answer = error

    def result(self) -> Any:
        self.join(SOON)
        assert not self.is_alive()
        return self.answer


WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


def get(client: httpx.Client, url: str) -> Callable[[], str]:
    """A request, to be done."""
    return lambda: client.get(url).text


def gone(connection: socket.socket) -> bool:
    """Whether the client has left."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


class Told:
    """Says that it was hung up."""

    def __init__(self, told: list, name: Any) -> None:
        self.told, self.name = told, name

    def hang_up(self) -> None:
        self.told.append(self.name)


def test_a_connection_that_was_given_back_is_never_shut(client: httpx.Client, listener: Listener):
    """Hanging up an attempt that is done with its connection does nothing to whoever has it now."""
    first, second = Line(), Line()
    asking = Asking(first, get(client, listener.url))
    connection = listener.accept()
    assert connection.recv(65536)
    connection.sendall(WHOLE + b"ok")
    assert asking.result() == "ok"

    asking = Asking(second, get(client, listener.url))
    assert connection.recv(65536).startswith(b"GET")  # the same connection
    first.hang_up()
    connection.sendall(WHOLE + b"go")
    assert asking.result() == "go"


@pytest.mark.e2e
def test_no_thread_leaves_while_it_is_hung_up():
    """Who is being hung up can't give back its connection before that is over."""
    line, shutting, go, passed = Line(), threading.Event(), threading.Event(), threading.Event()

    class Slow:
        def hang_up(self) -> None:
            shutting.set()
            go.wait(SOON)

    wait = Slow()
    line.enter(wait)
    hanging = threading.Thread(target=line.hang_up)
    hanging.start()
    assert shutting.wait(SOON)
    leaving = threading.Thread(target=lambda: (line.leave(wait), passed.set()))
    leaving.start()
    assert not passed.wait(NEVER)
    go.set()
    assert passed.wait(SOON)
    hanging.join()
    leaving.join()


def test_what_was_left_is_not_hung_up():
    """A line knows only what its threads are inside of; all of that is hung up."""
    line, told = Line(), []
    waits = [Told(told, number) for number in range(3)]
    for wait in waits:
        line.enter(wait)
    assert line.leave(waits[1]) is False
    line.hang_up()
    assert sorted(told) == [0, 2]
    assert line.leave(waits[0]) is True
    with pytest.raises(HungUp):
        line.enter(waits[1])
    assert line._inside == {waits[2]}


@pytest.mark.e2e
@pytest.mark.parametrize("how", ["silent", "in the middle", "in the clear", "whole but late"])
def test_a_request_that_is_hung_up(client: httpx.Client, listener: Listener, how: str):
    """The server sees it at once, and what had come by then is never taken for an answer."""
    line = Line()
    asking = Asking(line, get(client, listener.url))
    connection = listener.accept()
    assert connection.recv(65536)
    if how == "in the middle":
        connection.sendall(WHOLE + b"o")
    elif how == "in the clear":  # without a length the end of the connection is the end of the answer
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nhalf an ans")
    assert until(lambda: line._inside)
    time.sleep(0.02)
    if how == "whole but late":
        with line._lock:
            connection.sendall(WHOLE + b"ok")
            time.sleep(0.02)
            line.hung_up = True
    else:
        line.hang_up()
    assert isinstance(asking.result(), HungUp)
    assert gone(connection) and not client._transport._pool.connections


@pytest.mark.e2e
def test_nothing_is_sent_once_it_is_hung_up(client: httpx.Client, listener: Listener):
    """No connection is made any more, and none that is there is used."""
    line = Line()
    line.hang_up()
    assert isinstance(Asking(line, get(client, listener.url)).result(), HungUp)
    assert listener.nobody_comes()


@pytest.mark.parametrize("url", ["url", "secure_url"])
def test_nothing_is_sent_once_it_is_connected(client: httpx.Client, listener: Listener, url: str):
    """Whoever was hung up while it connected, which can't be ended, leaves without a word."""
    line, backend = Line(), client._transport._pool._network_backend._inner
    connect = backend.connect_tcp

    def slow(*args: Any, **kwargs: Any) -> Any:
        stream = connect(*args, **kwargs)
        line.hang_up()
        return stream

    backend.connect_tcp = slow
    assert isinstance(Asking(line, get(client, getattr(listener, url))).result(), HungUp)
    connection = listener.accept()
    assert connection.recv(65536) == b""


@pytest.mark.e2e
def test_a_request_that_can_not_be_sent(client: httpx.Client, listener: Listener):
    """A provider that does not read what it is sent is hung up as well."""
    line = Line()
    asking = Asking(line, lambda: client.post(listener.url, content=b"x" * 50_000_000).text)
    connection = listener.accept()
    assert until(lambda: line._inside)
    time.sleep(0.05)
    line.hang_up()
    assert isinstance(asking.result(), HungUp) and gone(connection)


@pytest.mark.e2e
def test_over_tls(client: httpx.Client, listener: Listener):
    """An encrypted connection is hung up too."""
    line = Line()
    asking = Asking(line, get(client, listener.secure_url))
    connection = tls(ssl.PROTOCOL_TLS_SERVER).wrap_socket(listener.accept(), server_side=True)
    assert connection.recv(65536).startswith(b"GET")
    assert until(lambda: line._inside)
    line.hang_up()
    assert isinstance(asking.result(), HungUp)
    assert connection.recv(65536) == b""


@pytest.mark.e2e
def test_a_handshake(client: httpx.Client, listener: Listener):
    """A provider that accepts and then says nothing, not even a handshake, is hung up; it is that attempt's failure alone."""
    line = Line()
    asking = Asking(line, get(client, listener.secure_url))
    connection = listener.accept()
    assert connection.recv(65536) and until(lambda: line._inside)
    line.hang_up()
    assert isinstance(asking.result(), httpx.ConnectError | HungUp)
    assert gone(connection) and not line._inside
    asking = Asking(Line(), get(client, listener.secure_url))
    connection = tls(ssl.PROTOCOL_TLS_SERVER).wrap_socket(listener.accept(), server_side=True)
    assert connection.recv(65536).startswith(b"GET")
    connection.sendall(WHOLE + b"ok")
    assert asking.result() == "ok"


@pytest.mark.e2e
def test_a_unix_socket(tmp_path: Any):
    """A provider on this machine, at a path, is hung up too."""
    path, line = str(tmp_path / "socket"), Line()
    with socket.socket(socket.AF_UNIX) as listening, httpx.Client(transport=httpx.HTTPTransport(uds=path)) as client:
        listening.bind(path)
        listening.listen()
        let_hang_up(SimpleNamespace(_client=client))
        asking = Asking(line, get(client, "http://local/"))
        connection, _ = listening.accept()
        assert connection.recv(65536)
        assert until(lambda: line._inside)
        line.hang_up()
        assert isinstance(asking.result(), HungUp) and gone(connection)
        assert isinstance(Asking(line, get(client, "http://local/")).result(), HungUp)
        listening.settimeout(NEVER)
        with pytest.raises(TimeoutError):  # nobody comes
            listening.accept()


@pytest.mark.e2e
def test_through_a_proxy(listener: Listener):
    """What goes through a proxy has a pool of its own, which is watched as well."""
    line = Line()
    with httpx.Client(mounts={"http://": httpx.HTTPTransport(proxy=listener.url)}, timeout=LONG) as client:
        assert let_hang_up(SimpleNamespace(client=SimpleNamespace(_client=client))) == 2
        asking = Asking(line, get(client, "http://provider.test/"))
        connection = listener.accept()
        assert connection.recv(65536).startswith(b"GET http://provider.test/")
        assert until(lambda: line._inside)
        line.hang_up()
        assert isinstance(asking.result(), HungUp) and gone(connection)


@pytest.mark.e2e
def test_several_threads_on_one_line(listener: Listener):
    """All requests that an attempt has under way are hung up: a chain may run its steps side by side."""
    line = Line()
    with httpx.Client(timeout=LONG) as client:
        let_hang_up(SimpleNamespace(_client=client))
        asking = [Asking(line, get(client, listener.url)) for _ in range(3)]
        connections = [listener.accept() for _ in asking]
        assert until(lambda: len(line._inside) == 3)
        for connection in connections:
            assert connection.recv(65536)
        time.sleep(0.02)
        line.hang_up()
        assert all(isinstance(thread.result(), HungUp) for thread in asking)
        assert all(gone(connection) for connection in connections)


def test_only_while_it_waits():
    """A line holds a connection for as long as one read or write takes, and not in between."""
    line, during = Line(), []
    inner = SimpleNamespace(
        read=lambda *_: during.append(len(line._inside)), write=lambda *_: during.append(len(line._inside))
    )
    stream = _Stream(inner)

    def exchange() -> list[int]:
        LINE.set(line)
        return [stream.write(b"x") or len(line._inside), stream.read(1) or len(line._inside)]

    assert contextvars.copy_context().run(exchange) == [0, 0] and during == [1, 1]
    assert stream.read(1) or during == [1, 1, 0]  # nobody's line


# ── Lines ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.timeout(10)
def test_the_garbage_collector_hangs_up_at_any_moment():
    """A stream that is collected in the very thread that begins to wait neither blocks it nor is missed by it."""
    line = Line()

    class Collecting:
        def __hash__(self) -> int:
            if not line.hung_up:
                line.hang_up()
            return 1

        def hang_up(self) -> None:
            raise AssertionError("it was not inside yet")

    with pytest.raises(HungUp):
        line.enter(Collecting())
    assert not line._inside


def test_a_line_within_a_line():
    """Hung up with the one around it, before and after it was made, and never the other way round."""
    around, told = Line(), []

    def within() -> tuple[Line, Line]:
        LINE.set(around)
        return Line(), Line()

    first, second = contextvars.copy_context().run(within)
    first.enter(Told(told, "first"))
    second.enter(Told(told, "second"))
    second.hang_up()
    assert told == ["second"] and not around.hung_up and not first.hung_up
    around.hang_up()
    assert first.hung_up and sorted(told) == ["first", "second", "second"]
    third, _ = contextvars.copy_context().run(within)
    with pytest.raises(HungUp):
        third.check()
    Line().check()


class Waiting:
    """Ends an event when it is hung up."""

    def __init__(self, event: threading.Event) -> None:
        self.hang_up = event.set


def running(attempt: Callable[[Any], Any]) -> Running:
    """An attempt that has begun."""
    call: Any = SimpleNamespace(ticket=SimpleNamespace(target=SimpleNamespace(route="a line's")))
    begun = Running(call, attempt, time.monotonic() + LONG)
    begun.begin()
    return begun


@pytest.mark.e2e
def test_being_hung_up_is_told_to_nobody():
    """Whoever abandoned an attempt has its own answer, and never the thread's `HungUp` instead."""
    entered = threading.Event()

    def attempt(call: Any) -> Any:
        line, hung_up = LINE.get(), threading.Event()
        line.enter(Waiting(hung_up))
        entered.set()
        hung_up.wait(SOON)
        raise HungUp

    begun = running(attempt)
    assert entered.wait(SOON)
    begun.abandon()
    assert begun.finished.wait(SOON)
    assert begun.raised is None
    assert until(lambda: THREADS.abandoned("a line's") == 0)


def test_an_attempts_line_is_its_own():
    """Neither its caller nor the next attempt, in the same thread, is on it."""
    lines = []
    for _ in range(2):
        begun = running(lambda call: lines.append(LINE.get()))
        assert begun.finished.wait(SOON)
    assert LINE.get() is None and None not in lines and lines[0] is not lines[1]


@pytest.mark.e2e
def test_a_streams_thread_is_on_its_line():
    """What the thread of a closed stream waits on is hung up, and it begins to wait on nothing else."""
    told: list[Any] = []
    go = threading.Event()

    def chunks() -> Iterator[int]:
        line = LINE.get()
        line.enter(Told(told, "hung up"))
        yield 1
        go.wait(SOON)
        try:
            line.check()
        except HungUp:
            told.append("raised")
            raise

    stream = PumpedStream(chunks(), "a stream's")
    stream.begin()
    assert stream.pull(SOON) == 1
    time.sleep(0.02)  # its thread has gone on to wait
    stream.close()
    assert told == ["hung up"]
    go.set()
    assert until(lambda: THREADS.abandoned("a stream's") == 0)
    assert told == ["hung up", "raised"]


@pytest.mark.e2e
def test_a_stream_that_fails_to_close_leaves_no_thread():
    """Closing reads on, in some clients, and so is hung up in the middle; nobody is there to be told."""

    class Chunks:
        def __init__(self, error: BaseException) -> None:
            self.error = error

        def __iter__(self) -> Iterator[int]:
            return self

        def __next__(self) -> int:
            time.sleep(0.002)
            return 1

        def close(self) -> None:
            raise self.error

    for error in (HungUp(), OSError("closed already")):
        stream = PumpedStream(Chunks(error), "a closing one's")
        stream.begin()
        assert stream.pull(SOON) == 1
        stream.close()
        assert until(lambda: THREADS.abandoned("a closing one's") == 0)


# ── Which clients ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_client_is_watched_once(server: FaultServer):
    """Models that share a client find it watched already, however often."""
    one, two = (instance(server, "anthropic", name) for name in ("one", "two"))
    assert [let_hang_up(model) for model in (one, two, one)] == [1, 1, 1]
    backend = one._client._client._transport._pool._network_backend
    assert one._client._client is two._client._client
    assert isinstance(backend, _Backend) and not isinstance(backend._inner, _Backend)


def test_a_client_that_is_not_made_yet_stays_so():
    """Anthropic's makes its client when it is first called: what the user copies from the model until then is not bound to one."""
    model = ChatAnthropic(model="one", api_key="sk-test", base_url="http://127.0.0.1:9", timeout=7.0)
    assert let_hang_up(model) == 1
    assert "_client" not in vars(model)
    other = model.model_copy(update={"max_retries": 4})
    assert other._client.max_retries == 4
    assert isinstance(model._client._client._transport._pool._network_backend, _Backend)


class Odd:
    """A client whose attributes fail, or should not be asked for."""

    made = False

    @property
    def _client(self) -> Any:
        raise RuntimeError("no key")

    @cached_property
    def client(self) -> Any:
        Odd.made = True
        return httpx.Client()


def test_clients_are_found_wherever_they_are(client: httpx.Client):
    """As deep as Google's, and beside attributes that fail."""
    assert let_hang_up(SimpleNamespace(client=SimpleNamespace(_api_client=SimpleNamespace(_httpx_client=client)))) == 1
    odd = Odd()
    odd.root_client = client
    assert let_hang_up(odd) == 1


def unknown() -> Iterator[Any]:
    """Clients that are not what we know."""
    yield Odd()
    yield SimpleNamespace(_client=MagicMock())
    yield SimpleNamespace(_client=httpx.AsyncClient())
    yield SimpleNamespace(_client=httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200))))
    yield SimpleNamespace(_client=SimpleNamespace(_transport=None, _mounts=None))
    pool = SimpleNamespace(_network_backend=httpx.HTTPTransport()._pool._network_backend)
    yield SimpleNamespace(_client=SimpleNamespace(_transport=SimpleNamespace(_pool=pool)))
    yield SimpleNamespace(_client=SimpleNamespace(_transport=SimpleNamespace(_pool=SimpleNamespace(_http2=False))))
    yield SimpleNamespace(
        _client=SimpleNamespace(_transport=SimpleNamespace(_pool=SimpleNamespace(_network_backend=socket)))
    )
    yield scripted()


def test_other_clients_are_left_alone():
    """What is not built as expected is not touched, and is no error."""
    for model in unknown():
        assert let_hang_up(model) == 0
    assert not Odd.made


def test_http2_is_left_alone():
    """One connection carries many requests there: shutting it for one would be everybody's loss."""
    client = SimpleNamespace(_transport=httpx.HTTPTransport())
    client._transport._pool._http2 = True
    assert let_hang_up(SimpleNamespace(_client=client)) == 0
    assert not isinstance(client._transport._pool._network_backend, _Backend)


def test_the_async_half_is_as_it_was(server: FaultServer):
    """Only sync clients are watched: an async one is cancelled by itself."""
    model = ChatOpenAI(model="one", base_url=server.base_url("openai"), api_key="sk-test")
    assert let_hang_up(model) == 1
    assert not isinstance(model.root_async_client._client._transport._pool._network_backend, _Backend)
    assert asyncio.run(model.ainvoke("hi")).text == "Hello from the fault server."


def test_a_backend_is_what_it_was(client: httpx.Client):
    """What else the network can do, it still does."""
    backend = client._transport._pool._network_backend
    assert backend.sleep.__self__ is backend._inner
