"""From settings to a box."""

import dataclasses

import pytest
from cryptography.fernet import Fernet

from langchain_resilient.engine.dead_letters.opening import FILE, DeadLetters, open_box
from langchain_resilient.engine.dead_letters.redis import SPOOL, RedisBox
from langchain_resilient.engine.dead_letters.sqlite import SqliteBox
from langchain_resilient.engine.errors import SettingsError
from tests.engine.dead_letters.post import TENANT, letter


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def opened(*args, **kwargs):
    """What is opened, and closed again."""
    box = open_box(*args, **kwargs)
    box.close()
    return box


@pytest.mark.parametrize(
    ("where", "file"),
    [
        (True, FILE),
        ("mine.db", "mine.db"),
        ("sqlite:///mine.db", "mine.db"),
        ("sqlite:///{home}/mine.db", "mine.db"),
        ("{home}/a b.db", "a b.db"),
    ],
)
def test_files(where, file, home):
    """True is a file of a known name in the working directory; a path and an SQLite URL are that file."""
    where = where.format(home=home) if isinstance(where, str) else where
    box = opened(where, backend="memory://")
    assert isinstance(box, SqliteBox) and (home / file).is_file()
    assert [path.name for path in home.iterdir()] == [file]


def test_redis(redis_url, namespace, home):
    """True is the backend's Redis, and a URL of Redis is that one; nothing is written beside the process as long as it is there."""
    assert isinstance(opened(True, backend=redis_url, namespace=namespace), RedisBox)
    box = opened(redis_url, backend="memory://", namespace=namespace)
    assert isinstance(box, RedisBox)
    assert box._spool.folder == home / SPOOL and not list(home.iterdir())
    assert isinstance(opened("letters.db", backend=redis_url), SqliteBox)


def test_a_backend_that_is_away(home):
    """A Redis that is not there is no error: letters are spooled in the named directory, and kept there when the box is closed."""
    box = open_box(DeadLetters(spool="later"), backend="redis://127.0.0.1:1/0")
    assert box.put(letter(1))
    box.close()
    (file,) = (home / "later").iterdir()
    assert file.read_bytes().count(b"\n") == 1


def test_settings_reach_the_box(home):
    """The hook, the keys, the cap and the time results are kept are the box's."""
    key = Fernet.generate_key().decode()
    now = [1000.0]
    box = open_box(
        DeadLetters("a.db", redact=lambda it: {**it, "messages": ["x" * 50]}, keys=[key], most_bytes=100, keep_results=60.0), wall=lambda: now[0]
    )  # fmt: skip
    box.put(letter(1))
    box.put(letter(2, content={"messages": [], "parameters": {"stop": "y" * 50}}))
    assert box.get("id-0001").content["messages"] == ["x" * 50]
    assert box.get("id-0002").parked == "too large"
    box.finish(box.claim(1, 10.0)[0], 1)
    now[0] += 60
    assert box.result("key-1", TENANT) is None
    box.close()
    other = open_box("a.db")
    other.put(letter(3))
    assert other.get("id-0002").content is None
    other.close()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"where": False}, "where: got False"), ({"where": ""}, "where"), ({"where": None}, "where"), ({"redact": "x"}, "redact"),
        ({"keys": "planted"}, "keys: got 'str'"), ({"keys": [b"planted"]}, "keys: got 'list'"), ({"most_bytes": 0}, "most_bytes: got 0"),
        ({"most_bytes": 1.5}, "most_bytes"), ({"spool": ""}, "spool"), ({"keep_results": 59}, "keep_results: got 59"),
        ({"wher": "x"}, "did you mean 'where'"), ({"keep_results": float("inf")}, "keep_results"),
    ],
)  # fmt: skip
def test_settings_are_checked(changed, said):
    """A setting that makes no sense is named when it is made, with the fix and without a key."""
    with pytest.raises(SettingsError, match=said) as caught:
        DeadLetters(**changed)
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize("where", ["postgres://me:planted@host/db", "sqlite://letters.db", "sqlite:///", "planted://"])
def test_places_that_are_none(where):
    """A URL of something else is refused, and not quoted: it may hold a password."""
    with pytest.raises(SettingsError, match=r"DeadLetters\.where") as caught:
        open_box(where)
    assert "planted" not in str(caught.value)


def test_keys_are_in_no_repr():
    """Settings are frozen, and don't show their keys."""
    made = DeadLetters(keys=["planted"])
    assert hash(made) == hash(DeadLetters(keys=("planted",)))
    assert "planted" not in repr(made)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.where = "x"
