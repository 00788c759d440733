"""What users may set: sections as mappings, as in a file, and errors that name the field."""

import pytest

from langchain_resilient import Circuit, Price, RateLimits, Retry, SettingsError, Timeouts
from litellm_hooks.settings import ForDeployment, Settings, read


def test_sections_may_be_mappings():
    """A section is read alike from a mapping and from the engine's own dataclass."""
    by_mapping = read(
        {"circuit": {"failure_threshold": 2}, "timeouts": {"idle": 3.0}, "retry": {"max_retries": 1}}, "x"
    )
    assert by_mapping == read(
        {"circuit": Circuit(failure_threshold=2), "timeouts": Timeouts(idle=3.0), "retry": Retry(max_retries=1)}, "x"
    )


def test_what_is_not_said_is_as_in_the_engine():
    """Nothing said means the engine's defaults, and the weights that LiteLLM's users know."""
    settings = read({}, "x")
    assert settings == Settings()
    assert (settings.circuit, settings.timeouts, settings.routing) == (Circuit(), Timeouts(), "weighted")


def test_a_deployment_s_own_come_before_its_group_s():
    """Settings of a deployment's id go before those of its group, and whoever has neither has none."""
    given = {
        "a": {"max_latency": 1.0},
        "main": {"max_latency": 2.0, "limits": {"rpm": 3}, "price": {"input": 1, "output": 2}},
    }
    settings = read({"deployments": given}, "x")
    assert settings.of("a", "main") == ForDeployment(max_latency=1.0)
    assert settings.of("b", "main") == ForDeployment(
        max_latency=2.0, limits=RateLimits(rpm=3), price=Price(input=1, output=2)
    )
    assert settings.of("b", "other") == ForDeployment()


def test_a_deployment_s_id_may_be_a_number():
    """A file's key that YAML reads as a number means the id of that spelling."""
    assert read({"deployments": {7: {"max_latency": 1.0}}}, "x").of("7", "main").max_latency == 1.0


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"timeout": {}}, "timeouts"),
        ({"timeouts": {"first": 1}}, "first_token"),
        ({"timeouts": {"idle": -1}}, "Timeouts.idle"),
        ({"routing": "fastest"}, "routing"),
        ({"backend": "postgres://x"}, "backend"),
        ({"max_pending": 0}, "max_pending"),
        ({"deployments": ["a"]}, "deployments"),
        ({"deployments": {"a": 1}}, "deployments.a"),
        ({"deployments": {"a": {"limit": {}}}}, "deployments.a"),
        ({"deployments": {"a": {"max_latency": -1}}}, "max_latency"),
        ({"deployments": {"a": {"limits": {"rpms": 1}}}}, "rpm"),
        ({"tenants": ["key"]}, "tenants: got"),
        ({"tenants": {"keys": {"rpm": 1}}}, "tenants: got 'keys'; did you mean 'key'"),
        ({"tenants": {"team": 5}}, r"tenants\.team: got 5"),
        ({"tenants": {"key": {"rpms": 1}}}, r"tenants\.key: .*'rpms'"),
        ({"tenants": {"key": {"rpm": "many"}}}, r"tenants\.key\.rpm: got 'many'"),
        ({"tenants": {"user": {"rpm": -1}}}, r"tenants\.user: RateLimits\.rpm"),
        ({"tenants": {"user": {"itpm": 5}}}, r"tenants\.user\.itpm: got 5; .*tpm"),
        ({"tenants": {"kye": None}}, "tenants: got 'kye'; did you mean 'key'"),
        ({"tenants": {"end_user": {}}}, r"tenants\.end_user: .*at least one"),
        ("fast", "install"),
    ],
)
def test_a_mistake_is_named(given: object, told: str):
    """What is unknown or makes no sense is refused by an error that names the field."""
    with pytest.raises(SettingsError, match=told):
        read(given, "install")


def test_limits_of_users_are_read():
    """Each kind of the Proxy's users has limits of its own, as a mapping or as the dataclass; what is empty is none."""
    given = {"key": {"rpm": 60, "tpm": "1000", "burst": 5}, "team": RateLimits(rpd=9), "user": None}
    assert read({"tenants": given}, "x").tenants == {
        "key": RateLimits(rpm=60, tpm=1000, burst=5),
        "team": RateLimits(rpd=9),
    }
    assert read({"tenants": None}, "x").tenants == read({}, "x").tenants == {}


def test_a_backend_is_not_shown():
    """The URL of a backend, which may hold a password, is not in what is printed."""
    assert "hunter2" not in repr(read({"backend": "redis://:hunter2@127.0.0.1:1/0"}, "x"))
