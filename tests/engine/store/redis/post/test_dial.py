"""From a URL to connections: what is read, what is passed on, and what is never said."""

import sys
import warnings

import pytest

redis = pytest.importorskip("redis")

from langchain_resilient.engine.errors import SettingsError  # noqa: E402  # after importorskip
from langchain_resilient.engine.store.redis.post.dial import FIXED, Denied, Dial, Node, slot_of  # noqa: E402
from langchain_resilient.engine.store.redis.post.resp import packed, unpacked  # noqa: E402
from langchain_resilient.engine.store.redis.post.troubles import Trouble, meaning, trouble  # noqa: E402

READ = {
    "redis://": ("redis://localhost:6379", {"host": "localhost", "port": 6379}),
    "redis://h": ("redis://h:6379", {"host": "h"}),
    "redis://u:s%40c@h:7/3": ("redis://h:7/3", {"username": "u", "password": "s@c", "db": 3}),
    "rediss://h?ssl_ca_certs=/ca": ("rediss://h:6379", {"ssl_ca_certs": "/ca"}),
    "unix:///run/r.sock?db=2": ("unix:///run/r.sock", {"path": "/run/r.sock", "db": 2}),
    "unix://:pw@/run/r.sock": ("unix:///run/r.sock", {"password": "pw"}),
    "redis+cluster://u:pw@a:1,b,[::1]:3": ("redis+cluster://a:1,b:6379,::1:3", {"username": "u", "password": "pw"}),
    "redis+sentinel://:pw@a,b:2/main/4": ("redis+sentinel://a:26379,b:2/main/4", {"password": "pw", "db": 4}),
    "rediss+sentinel://a/main": ("rediss+sentinel://a:26379/main", {}),
}


@pytest.mark.parametrize(("url", "expected"), READ.items(), ids=READ)
def test_urls_are_read(url: str, expected: tuple[str, dict]):
    """Each form of URL names its servers, and gives its user, password, database and TLS settings to redis-py."""
    dial = Dial(url)
    shown, settings = expected
    assert dial.shown == shown or dial.shown.startswith(shown)
    assert settings.items() <= dial._settings_of_one.items()
    assert repr(dial) == f"Dial({dial.shown!r})"


@pytest.mark.parametrize("url", ["redis://h", "unix:///s", "redis+sentinel://h/main?sentinel_password=x"])
def test_every_default_that_could_wait_is_passed(url: str):
    """Whatever the version of redis-py: no retries, the budget as every timeout, no health checks, bytes, RESP2."""
    dial = Dial(url, budget=0.5)
    made = dial._sentinel_pool().make_connection() if dial._sentinels else dial._made()
    assert (made.socket_timeout, made.socket_connect_timeout, made.health_check_interval) == (0.5, 0.5, 0)
    assert made.retry._retries == 0 and not made.retry_on_timeout and str(made.protocol) == "2"
    assert made.client_name == "langchain-resilient" and not made.encoder.decode_responses


def test_no_connection_tells_which_library_it_is():
    """CLIENT SETINFO is switched off, for servers and sentinels, by the name that this redis-py has for it; and none of them is deprecated."""
    names = {"driver_info", "lib_name", "lib_version"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one, behind = Dial("rediss://h")._made(), Dial("redis+sentinel://h/main")._sentinel_pool()
    sentinel = behind.sentinel_manager.sentinels[0].connection_pool.make_connection()
    for made in (one, behind.make_connection(), sentinel):
        told = {name: getattr(made, name) for name in names if hasattr(made, name)}
        assert told and all(value is None for value in told.values())


@pytest.mark.parametrize("option", sorted(FIXED))
@pytest.mark.parametrize("url", ["redis://u:hush@h", "unix://:hush@/s", "redis+cluster://u:hush@a,b", "redis+sentinel://u:hush@a,b/main?password=hush"])  # fmt: skip
def test_an_option_that_is_the_couriers_own_is_refused(url: str, option: str):
    """An option that a URL may not set is an error of `backend` that names it and the fix, and nothing else of the URL, its value included."""
    form = url.partition("://")[0]
    for value in ("hush", "3", ""):
        with pytest.raises(SettingsError) as raised:
            Dial(f"{url}{'&' if '?' in url else '?'}client_name=hush&{option}={value}")
        told = f"backend: got {form}://…?{option}=…: {option} is the courier's own to set; leave it out"
        assert str(raised.value) == told and raised.value.__context__ is None


BAD = [
    "localhost:6379",
    "http://h",
    "redis+other://h",
    "redis://user:hush@h:port",
    "redis://:hush",
    "redis://u:hu/sh@h",
    "redis://h/zero?password=hush",
    "redis://u:hush@h?ssl_check_hostname=many",
    "redis://u:hush@h?colour=blue",
    "unix://:hush@",
    "redis+cluster://u:hush@",
    "redis+cluster://u:hush@a:1,b:x",
    "redis+sentinel://u:hush@a",
    7,
]


@pytest.mark.parametrize("url", BAD)
def test_a_bad_url_is_told_without_its_secrets(url: object):
    """A URL that makes no sense is an error of the setting `backend` that names the forms there are, and holds no password."""
    with pytest.raises(SettingsError, match=r"^backend: .*redis\+sentinel://") as raised:
        Dial(url)
    assert "hush" not in repr(raised.value) and "hu/sh" not in repr(raised.value)
    assert raised.value.__cause__ is None and (raised.value.__context__ is None or raised.value.__suppress_context__)


def test_without_redis_py(monkeypatch: pytest.MonkeyPatch):
    """A missing client is an error that names what to install."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "redis"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(SettingsError, match=r"pip install 'langchain-resilient\[redis\]'"):
        Dial("redis://h")


ANSWERS = {
    "NOSCRIPT No matching script.": "noscript",
    "WRONGPASS invalid username-password pair or user is disabled.": "denied",
    "NOAUTH Authentication required.": "denied",
    "NOPERM User lr has no permissions to run the 'evalsha' command": "denied",
    "ERR ACL failure in script: User lr has no permissions to run the 'time' command": "denied",
    "ERR AUTH <password> called without any password configured for the default user": "denied",
    "OOM command not allowed when used memory > 'maxmemory'.": "outage",
    "ERR Error running script (call to f_1): @user_script:1: -OOM command not allowed": "outage",
    "READONLY You can't write against a read only replica.": "outage",
    "LOADING Redis is loading the dataset in memory": "outage",
    "MASTERDOWN Link with MASTER is down": "outage",
    "CLUSTERDOWN The cluster is down": "outage",
    "ERR max number of clients reached": "outage",
    "MOVED 3999 127.0.0.1:6381": "lost",
    "ERR user_script:1: attempt to index a nil value": "script",
}


@pytest.mark.parametrize(("text", "kind"), ANSWERS.items(), ids=ANSWERS)
def test_what_a_servers_error_means(text: str, kind: str):
    """Each error a server can answer is an outage, a denial, a missing script, or the script's own fault."""
    assert meaning(text) == kind


def test_what_an_exception_means():
    """redis-py's exceptions, which lack the error's first word, and the standard library's mean the same."""
    errors = redis.exceptions
    kinds = {
        errors.TimeoutError("x"): "timeout",
        TimeoutError(): "timeout",
        ConnectionRefusedError(111, "refused"): "lost",
        errors.ConnectionError("x"): "lost",
        errors.AuthenticationError("x"): "denied",
        errors.NoPermissionError("x"): "denied",
        errors.BusyLoadingError("x"): "outage",
        errors.ReadOnlyError("x"): "outage",
        errors.OutOfMemoryError("x"): "outage",
        errors.MasterDownError("x"): "outage",
        errors.NoScriptError("x"): "noscript",
        errors.ResponseError("x"): "script",
        errors.ConnectionError("max number of clients reached"): "outage",
    }
    assert {error: trouble(error).kind for error in kinds} == kinds


def test_a_denial_names_setting_and_fix():
    """A refusal is an error of the setting, with the server's words and what to do."""
    dial = Dial("redis://lr:hush@h")
    told = str(dial.denial(Trouble("denied", "NOPERM User lr has no permissions to run the 'evalsha' command")))
    assert told == (
        "backend: redis://h:6379 refuses this user: NOPERM User lr has no permissions to run the 'evalsha' command; "
        "give the user that right"
    )
    assert "the password in the URL" in str(dial.denial(Trouble("denied", "WRONGPASS invalid username-password pair")))
    assert issubclass(Denied, SettingsError)


def test_slots_of_a_cluster():
    """A key's slot is the cluster's own: by its hash tag, where it has one."""
    assert slot_of("123456789") == 0x31C3 % 16384 and slot_of("{a}x") == slot_of("{a}y") == slot_of("a")
    assert slot_of("{\ud800}") == slot_of("\ud800")


def test_resp_is_written():
    """Words are counted in bytes."""
    assert packed(["A", "é", ""]) == b"*3\r\n$1\r\nA\r\n$2\r\n\xc3\xa9\r\n$0\r\n\r\n"
    assert packed(["A", "bc"]) == b"*2\r\n$1\r\nA\r\n$2\r\nbc\r\n"


REPLIES = {
    b":5\r\n": 5,
    b":-12345\r\n": -12345,
    b"+OK\r\n": b"OK",
    b"$-1\r\n": None,
    b"*-1\r\n": None,
    b"*0\r\n": [],
    b"$0\r\n\r\n": b"",
    b"$4\r\n\r\n\r\n\r\n": b"\r\n\r\n",
    b"*3\r\n:1\r\n$3\r\na\r\n\r\n*2\r\n$-1\r\n:1000\r\n": [1, b"a\r\n"[:3], [None, 1000]],
    b"$70\r\n" + b"x" * 70 + b"\r\n": b"x" * 70,
}


@pytest.mark.parametrize(("sent", "expected"), REPLIES.items(), ids=map(repr, REPLIES))
def test_resp_is_read_whole_or_not_at_all(sent: bytes, expected: object):
    """Every reply is read as it was meant, and any beginning of it is known to be incomplete."""

    def read(data: bytes) -> object:
        lines = data.split(b"\r\n")
        lines.pop()
        return unpacked(iter(lines))

    assert read(sent) == expected
    for end in range(len(sent)):
        with pytest.raises(StopIteration):
            read(sent[:end])


def test_resp_errors():
    """An error inside a reply is a value; what is no RESP2 is a broken connection."""
    inside = unpacked(iter([b"*2", b":1", b"-OOM no"]))
    assert inside[0] == 1 and inside[1].kind == "outage"
    for lines in ([b"%1"], [b"$3", b"toolong"]):
        with pytest.raises(Trouble) as raised:
            unpacked(iter(lines))
        assert raised.value.kind == "lost"


def test_layout_of_a_cluster():
    """The primaries' ranges are taken from CLUSTER SLOTS; a node that does not know its own name is the one that was asked."""

    class Connection:
        host = "asked"

        def send_command(self, *words: str) -> None:
            assert words == ("CLUSTER", "SLOTS")

        def read_response(self) -> list:
            return [[0, 9, [b"a", 1, b"id"], [b"replica", 2, b"id"]], [10, 16383, [b"", 3, b"id"]]]

    found = list(Dial("redis+cluster://h").slots(Connection()))
    assert found == [(0, 9, Node("a", 1)), (10, 16383, Node("asked", 3))]
