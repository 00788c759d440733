"""`import-litellm`: what of LiteLLM's file is carried, what is said of the rest, and that no secret gets through."""

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langchain_resilient import ResilientChatModel
from langchain_resilient.cli import import_litellm as command
from langchain_resilient.cli.litellm_reading import Cleaned, cleaned
from langchain_resilient.cli.redact import Redactor
from langchain_resilient.config import check_settings, read_yaml
from langchain_resilient.engine.errors import SettingsError
from langchain_resilient.engine.store import memory

KNOWN = frozenset(ResilientChatModel.model_fields)
BUILT = ("openai", "azure_openai", "anthropic", "ollama")
VARIABLE = re.compile(r"\$\{(\w+)\}")


def imported(content, group: str | None = None) -> tuple[dict, str]:
    """The settings of a file's content, and all remarks."""
    found = command.converted(cleaned(content, Redactor({})), group)
    return found.settings, "\n".join(found.remarks)


def of(*params, **rest) -> dict:
    """A file whose one group, main, has these deployments."""
    entries = [{"model_name": "main", "litellm_params": {"model": "openai/m", **own}} for own in params]
    return {"model_list": entries, **rest}


def provider(own: dict, **rest) -> dict:
    """The only provider of a file with one deployment."""
    return imported(of(own, **rest))[0]["providers"][0]


# ---------------------------------------------------------------------------------------------------------------- the command
FILE = """
model_list:
  - model_name: gpt-4o
    litellm_params: &eu
      model: azure/my-deploy
      api_base: os.environ/AZURE_BASE
      api_key: os.environ/AZ_KEY
      api_version: 2024-10-21
      rpm: 100
      timeout: 30
      input_cost_per_token: 1e-6
      output_cost_per_token: 0.000002
  - model_name: gpt-4o
    litellm_params: {model: gpt-4o, api_key: sk-proj-planted0815, temperature: 0.2, max_tokens: 100, tags: [a]}
  - model_name: claude
    litellm_params: {model: anthropic/claude-sonnet-4-5, max_parallel_requests: 4, stream_timeout: 5}
  - model_name: other
    litellm_params: {<<: *eu}
router_settings: {num_retries: 2, allowed_fails: 3, cooldown_time: 30, fallbacks: [{gpt-4o: [claude]}]}
litellm_settings: {callbacks: [prometheus], request_timeout: 60}
general_settings: {master_key: planted-master-key}
guardrails: [{guardrail_name: x}]
"""
WRITTEN = """\
# gpt-4o, imported from LiteLLM's config.yaml
providers:
- model: azure_openai:my-deploy
  priority: 0
  model_kwargs:
    api_version: '2024-10-21'
    azure_endpoint: ${AZURE_BASE}
    api_key: ${AZ_KEY}
    azure_deployment: my-deploy
  limits:
    rpm: 100
  price:
    input: 1.0
    output: 2.0
  timeouts:
    response: 30
- model: openai:gpt-4o
  priority: 0
  model_kwargs:
    temperature: 0.2
    max_tokens: 100
    api_key: ${OPENAI_API_KEY}
- model: anthropic:claude-sonnet-4-5
  priority: 1
  limits:
    concurrency: 4
  timeouts:
    response: 60
    first_token: 5
    idle: 5
routing: priority
retry:
  max_retries: 2
circuit:
  failure_threshold: 4
  recovery_timeout: 30
timeouts:
  response: 60
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """LiteLLM's file."""
    made = tmp_path / "config.yaml"
    made.write_text(FILE)
    return made


def test_the_settings_go_to_stdout_and_the_remarks_to_stderr(typed, path):
    """Stdout holds the new file, stderr one line for each thing that is not in it, and neither a literal secret."""
    ran = typed("import-litellm", path)
    assert (ran.code, ran.out) == (0, WRITTEN)
    assert all(line.startswith("note: ") for line in ran.err.splitlines())
    for said in (
        "model_list: not carried: other: ",
        "model_list[1].litellm_params.api_key: its literal is not written: set the variable OPENAI_API_KEY",
        "model_list[1].litellm_params.tags: not carried: there are no tags here",
        "router_settings.routing_strategy: simple-shuffle is not carried: ",
        "litellm_settings.callbacks: not carried: ",
        "general_settings: not carried: ",
        "guardrails: not carried: ",
    ):
        assert ran.err.count(f"note: {said}") == 1, said
    assert "planted" not in ran.out + ran.err


def test_what_is_written_is_what_our_reader_reads(typed, path, monkeypatch):
    """The new file makes a model, with its variables taken from the environment."""
    new = path.with_name("resilience.yaml")
    new.write_text(typed("import-litellm", path).out)
    for name, value in {
        "AZURE_BASE": "https://eu.example",
        "AZ_KEY": "one",
        "OPENAI_API_KEY": "two",
        "ANTHROPIC_API_KEY": "x",
    }.items():
        monkeypatch.setenv(name, value)
    model = ResilientChatModel.from_yaml(new)
    targets = model._engine.policy.targets
    assert [target.name for target in targets] == ["azure/my-deploy", "openai/gpt-4o", "anthropic/claude-sonnet-4-5"]
    assert targets[0].client.model.azure_endpoint == "https://eu.example"
    assert targets[0].client.model.openai_api_key.get_secret_value() == "one"
    assert targets[2].circuit.failure_threshold == 4


def test_json_is_one_document(typed, path):
    """With --json stdout is one document of the group, the settings, the same text and the remarks, and stderr is silent."""
    ran = typed("import-litellm", path, "--json")
    document = json.loads(ran.out)
    assert (ran.code, ran.err, document["group"], document["yaml"]) == (0, "", "gpt-4o", WRITTEN)
    assert document["settings"] == yaml.safe_load(WRITTEN)
    assert any(remark.startswith("guardrails: not carried") for remark in document["remarks"])


BROKEN = {
    "no YAML": ("model_list: [", r".*config.yaml: got text that is no YAML at line 1.*fix its syntax"),
    "a month 13": ("a: 2024-13-01", r".*config.yaml: got a value that is none of its type .*"),
    "a list of lists": ("[" * 2000, r".*config.yaml: got YAML that is nested too deeply.*"),
    "nothing": ("", r"config: got 'NoneType'; give LiteLLM's config.yaml, with `model_list:`"),
    "no model_list": ("router_settings: {}", r"model_list: got None; write `model_list:` with entries.*"),
    "an empty model_list": ("model_list: []", r"model_list: got 'list'; .*"),
    "an entry that is none": ("[7]", r"model_list\[0\]: got 7; write `model_name:` and `litellm_params:`"),
    "no params": ("[{model_name: a}]", r"model_list\[0\]\.litellm_params: got None; write `model:` and its settings"),
    "no model": ("[{model_name: a, litellm_params: {}}]", r"model_list\[0\]\.litellm_params\.model: got None; write a name.*"),
    "no name": ("[{litellm_params: {model: openai/m}}]", r"model_list\[0\]\.model_name: got None; write a name.*"),
    "a key for a model": (
        "[{model_name: a, litellm_params: {model: openai/sk-planted0815}}]",
        r"model_list\[0\]\.litellm_params\.model: got 'openai/\[hidden\]'; .*",
    ),
    "wildcards only": (
        "[{model_name: '*', litellm_params: {model: '*'}}]",
        r"model_list: got 'only wildcards, such as \*'; name a model that it stands for: --group .*",
    ),
    "nobody that LangChain knows": (
        "[{model_name: a, litellm_params: {model: nonesuch/m}}]",
        r"model_list: got nothing for 'a' .*no word for the provider of 'nonesuch/m'.*; name another group with --group",
    ),
    "aliases without end": ("&a [*a]", r"config: got 'values nested deeper than 40'; .*"),
    "aliases that multiply": (
        "\n".join(["a0: &a0 [1, 1, 1, 1]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 15))]),
        r"config: got 'more than 100000 values'; .*",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "said"), BROKEN.values(), ids=BROKEN)
def test_what_is_malformed_is_one_line_that_names_the_place_and_the_fix(typed, path, content, said):
    """A file that LiteLLM could not use either is exit code 2 and one line; nothing is written."""
    path.write_text(content)
    ran = typed("import-litellm", path)
    assert (ran.code, ran.out) == (2, "")
    assert re.fullmatch(f"error: {said}\n", ran.err), ran.err


def test_an_unknown_group_is_told_its_neighbour(typed, path):
    """--group with a name that is not there is misuse, and names the nearest."""
    ran = typed("import-litellm", path, "--group", "clade")
    assert (ran.code, ran.out, ran.err) == (2, "", "error: --group: got 'clade'; did you mean 'claude'?\n")


# --------------------------------------------------------------------------------------------------------------------- groups
def test_the_first_group_answers_unless_another_is_named():
    """--group chooses among the groups; a bare list is a model_list; an alias is as good as its group."""
    entries = [{"model_name": name, "litellm_params": {"model": f"openai/{name}"}} for name in ("a", "b")]
    assert imported(entries)[0]["providers"] == [{"model": "openai:a"}]
    assert imported(entries, "b")[0]["providers"] == [{"model": "openai:b"}]
    aliased = {
        "model_list": entries,
        "router_settings": {"model_group_alias": {"c": "b", "d": {"model": "b", "hidden": True}}},
    }
    for name in ("c", "d"):
        assert imported(aliased, name)[0]["providers"] == [{"model": "openai:b"}]


def test_a_wildcard_stands_for_what_was_asked():
    """A name that fits a wildcard is answered by its deployments, the most specific wildcard's; one without a name is passed over."""
    entries = [
        {"model_name": name, "litellm_params": {"model": name}} for name in ("*", "openai/*", "anthropic/*", "ollama/m")
    ]
    assert imported(entries)[0]["providers"] == [{"model": "ollama:m"}]
    assert imported(entries, "anthropic/claude-x")[0]["providers"] == [{"model": "anthropic:claude-x"}]
    assert "a wildcard stands for no one model" in imported([entries[3], {**entries[1], "model_name": "ollama/m"}])[1]


@pytest.mark.parametrize(
    ("told", "order"),
    [
        ({"router_settings": {"fallbacks": [{"x": ["c"]}, {"main": ["c", {"model": "b", "temperature": 1}]}]}}, "cb"),
        ({"litellm_settings": {"fallbacks": [{"main": ["b"]}], "default_fallbacks": ["c"]}}, "b"),
        ({"litellm_settings": {"default_fallbacks": ["main", "c", "nobody", "c"]}}, "c"),
        ({"router_settings": {"fallbacks": [{"*": ["c"]}], "context_window_fallbacks": [{"main": ["b"]}]}}, "c"),
        ({}, ""),
    ],
)
def test_fallback_groups_stand_behind_in_their_order(told, order):
    """Whom LiteLLM would fall back to is asked after the group, by `priority`; a group's own fallbacks come before the general ones."""
    others = [{"model_name": name, "litellm_params": {"model": f"openai/{name}"}} for name in "bc"]
    found, remarks = imported({"model_list": [*of({})["model_list"], *others], **told})
    assert [each["model"] for each in found["providers"]] == ["openai:m", *(f"openai:{name}" for name in order)]
    if order:
        assert [each["priority"] for each in found["providers"]] == list(range(len(order) + 1))
        assert found["routing"] == "priority"
    assert ("'nobody' is left out: there is no such group" in remarks) == ("nobody" in str(told))
    assert ("sets beside the group b is not carried" in remarks) == ("temperature" in str(told))
    assert ("context_window_fallbacks: not carried: a prompt too large" in remarks) == ("context" in str(told))


def test_order_is_priority():
    """LiteLLM's `order` goes before the place in the list, and who has none comes last."""
    found = imported(of({"model": "openai/a"}, {"model": "openai/b", "order": 2}, {"model": "openai/c", "order": 1}))[0]
    assert [(each["model"], each["priority"]) for each in found["providers"]] == [
        ("openai:c", 0), ("openai:b", 1), ("openai:a", 2),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------------ providers
SPECS = {
    "gpt-4o": "openai:gpt-4o",
    "o3-mini": "openai:o3-mini",
    "claude-sonnet-4-5": "anthropic:claude-sonnet-4-5",
    "ollama_chat/llama3.1:8b": "ollama:llama3.1:8b",
    "gemini/gemini-2.5-pro": "google_genai:gemini-2.5-pro",
    "vertex_ai/gemini-2.5-pro": "google_vertexai:gemini-2.5-pro",
    "vertex_ai/claude-sonnet-4-5": "google_anthropic_vertex:claude-sonnet-4-5",
    "azure/deployed": "azure_openai:deployed",
    "bedrock/converse/us.anthropic.claude": "bedrock_converse:us.anthropic.claude",
    "mistral/mistral-large": "mistralai:mistral-large",
    "together_ai/meta/llama": "together:meta/llama",
    "fireworks_ai/accounts/x": "fireworks:accounts/x",
    "openrouter/openai/gpt-4o": "openrouter:openai/gpt-4o",
    "hosted_vllm/meta/llama": "openai:meta/llama",
}


@pytest.mark.parametrize(("model", "spec"), SPECS.items())
def test_a_model_is_spelled_as_langchain_does(model, spec):
    """LiteLLM's "provider/model" becomes LangChain's "provider:model", by the one table of `identity`, for the chat client."""
    assert provider({"model": model})["model"] == spec


def test_langchain_knows_every_word():
    """Every word that a spec may get is one of `init_chat_model`'s."""
    from langchain.chat_models import base

    from langchain_resilient.cli.litellm_words import ARGUMENTS_OF, ENDPOINTS, KEYS, OF_ANOTHER_CLIENT, WORDS

    words = {*WORDS.values(), *OF_ANOTHER_CLIENT.values(), *ARGUMENTS_OF, *ENDPOINTS, *KEYS} - {"amazon_bedrock"}
    assert words <= set(base._BUILTIN_PROVIDERS)


def test_names_are_unique():
    """Two deployments of one model are told apart by LiteLLM's id, or by a number."""
    entries = of({}, {}, {}, {"model": "openai/n"})["model_list"]
    entries[0]["model_info"] = entries[2]["model_info"] = {"id": "eu"}
    found = imported(entries)[0]["providers"]
    assert [each.get("name") for each in found] == ["openai/m#eu", "openai/m#1", "openai/m#2", None]


def test_a_literal_key_becomes_a_variable():
    """Equal literals are one variable, different ones are two, and none is a variable that the file uses for another."""
    keys = ["os.environ/OPENAI_API_KEY", "planted-one", "planted-two", "planted-one", 12345]
    found, remarks = imported(of(*({"api_key": key} for key in keys)))
    assert [each["model_kwargs"]["api_key"] for each in found["providers"]] == [
        "${OPENAI_API_KEY}", "${OPENAI_API_KEY_2}", "${OPENAI_API_KEY_3}", "${OPENAI_API_KEY_2}", "${OPENAI_API_KEY_4}",
    ]  # fmt: skip
    assert "set the variable OPENAI_API_KEY_2" in remarks
    assert "planted" not in remarks and "12345" not in remarks


def test_a_clients_arguments_bear_its_own_names():
    """What the client takes is carried in its words; what it does not take is remarked on."""
    assert provider({"api_base": "http://x/v1", "seed": "7", "stop": "END", "max_completion_tokens": 9})["model_kwargs"] == {
        "seed": 7, "stop": ["END"], "max_tokens": 9, "base_url": "http://x/v1",
    }  # fmt: skip
    assert provider({"model": "bedrock/x", "aws_region_name": "eu-1", "aws_secret_access_key": "planted-8"})["model_kwargs"] == {
        "region_name": "eu-1", "aws_secret_access_key": "${AWS_SECRET_ACCESS_KEY}",
    }  # fmt: skip
    assert provider({"model": "azure/d", "api_base": "https://x"})["model_kwargs"] == {
        "azure_endpoint": "https://x", "azure_deployment": "d", "api_key": "${AZURE_API_KEY}", "api_version": "${AZURE_API_VERSION}",
    }  # fmt: skip
    assert provider({"model": "hosted_vllm/x"})["model_kwargs"] == {
        "base_url": "${HOSTED_VLLM_API_BASE}", "api_key": "${HOSTED_VLLM_API_KEY:-none}",
    }  # fmt: skip
    remarks = imported(of({"model": "ollama/x", "api_key": "ollama", "logit_bias": {}, "temperature": "warm"}))[1]
    assert "api_key: not carried: its client takes no key" in remarks
    assert "logit_bias: not carried: no setting here does that" in remarks
    assert "temperature: not carried: write a number" in remarks


def test_headers_are_secrets_unless_they_are_variables():
    """A literal header is not written, as any may hold a key; one from the environment is."""
    assert provider({"extra_headers": {"x-key": "os.environ/X"}})["model_kwargs"] == {
        "default_headers": {"x-key": "${X}"}
    }
    assert "model_kwargs" not in provider({"extra_headers": {"x": 7}})
    found, remarks = imported(of({"extra_headers": {"x": "planted-header"}}))
    assert "model_kwargs" not in found["providers"][0]
    assert "extra_headers: not carried: a secret is written as os.environ/NAME" in remarks


def test_limits_prices_and_times_of_a_deployment():
    """A deployment's own limits, price, time limits and cooldown are its provider's; where one replaces a section it holds the rest of it too."""
    own = {
        "rpm": 60, "max_parallel_requests": 2, "timeout": 20, "cooldown_time": 9, "input_cost_per_token": "1.5e-7",
        "output_cost_per_token": 6e-7, "cache_read_input_token_cost": 1e-8, "max_input_tokens": 1000,
    }  # fmt: skip
    content = of(own, router_settings={"allowed_fails": 1, "cooldown_time": 5, "stream_timeout": 4})
    content["model_list"][0]["tpm"] = 9000
    found = imported(content)[0]
    assert found == {
        "providers": [
            {
                "model": "openai:m",
                "limits": {"rpm": 60, "tpm": 9000, "concurrency": 2},
                "price": {"input": 0.15, "output": 0.6, "cached_input": 0.01},
                "timeouts": {"first_token": 4, "idle": 4, "response": 20},
                "circuit": {"failure_threshold": 2, "recovery_timeout": 9},
                "context_window": 1000,
            }
        ],
        "circuit": {"failure_threshold": 2, "recovery_timeout": 5},
        "timeouts": {"first_token": 4, "idle": 4},
    }
    assert "a price needs" in imported(of({"input_cost_per_token": 1}))[1]
    assert "rpm: not carried: write a whole number ≥ 1" in imported(of({"rpm": 0}))[1]


def test_what_is_no_chat_model_is_left_out():
    """An embedding deployment of the group is passed over with a remark."""
    entries = of({}, {"model": "openai/e"})["model_list"]
    entries[1]["model_info"] = {"mode": "embedding"}
    found, remarks = imported(entries)
    assert [each["model"] for each in found["providers"]] == ["openai:m"]
    assert "model_list[1].model_info.mode: the deployment is left out: 'embedding'" in remarks


# -------------------------------------------------------------------------------------------------------------- for all of them
@pytest.mark.parametrize(
    ("strategy", "own", "routing", "weights", "said"),
    [
        (None, {}, "weighted", [None, None], ""),
        ("simple-shuffle", {"weight": 3}, "weighted", [3, 0], ""),
        ("simple-shuffle", {"rpm": 30}, "weighted", [30, 0], "as `limits` they are kept from now on"),
        ("simple-shuffle", {"order": 1, "weight": 3}, "priority", [3, None], ""),
        ("latency-based-routing", {}, "latency", [None, None], ""),
        ("latency-based-routing", {"order": 1}, "latency", [None, None], "also those that LiteLLM only falls back to"),
        ("cost-based-routing", {}, "cost", [None, None], ""),
        ("least-busy", {}, "priority", [None, None], "'least-busy' is not carried"),
        ("usage-based-routing-v2", {}, "priority", [None, None], "'usage-based-routing-v2' is not carried"),
    ],
)
def test_routing(strategy, own, routing, weights, said):
    """A strategy becomes ours where there is one; shares are those that LiteLLM would go by."""
    content = of({"model": "openai/a", **own}, {"model": "openai/b"}, router_settings={"routing_strategy": strategy})
    found, remarks = imported(content)
    assert found["routing"] == routing
    assert [each.get("weight") for each in found["providers"]] == weights
    assert said in remarks if said else not remarks


@pytest.mark.parametrize(
    ("told", "backend"),
    [
        ({"redis_url": "os.environ/REDIS_URL"}, "${REDIS_URL}"),
        ({"redis_url": "redis://user:planted@host:1/2"}, "redis://:${REDIS_PASSWORD}@host:1/2"),
        ({"redis_host": "host"}, "redis://host:6379"),
        ({"redis_host": "os.environ/H", "redis_port": "os.environ/P", "redis_password": "os.environ/W"}, "redis://:${W}@${H}:${P}"),
        ({"redis_host": "h", "redis_port": 1, "redis_password": "planted!", "redis_db": 3}, "redis://:${REDIS_PASSWORD}@h:1/3"),
        ({"redis_host": "h", "redis_username": "u", "redis_password": "os.environ/W"}, "redis://u:${W}@h:6379"),
        ({"redis_url": "http://x"}, None),
        ({"redis_port": 1}, None),
        ({"redis_url": "redis://x:port"}, None),
        ({"redis_host": "a b"}, None),
    ],
)  # fmt: skip
def test_redis_is_the_backend(told, backend):
    """The Router's Redis is the backend, its password a variable; what is no address is remarked on."""
    found, remarks = imported(of({}, router_settings=told))
    assert found.get("backend") == backend
    assert "planted" not in remarks
    assert bool(remarks) == (backend is None or "REDIS_PASSWORD" in backend or "W" in backend)


def test_router_settings_hold_before_litellm_settings():
    """Where both sections say something the Router's holds, and the other is remarked on."""
    found, remarks = imported(of({}, router_settings={"num_retries": 1}, litellm_settings={"num_retries": 5}))
    assert found["retry"] == {"max_retries": 1}
    assert remarks.startswith("litellm_settings.num_retries: not carried: it is said otherwise elsewhere")


# ------------------------------------------------------------------------------------------------------------------ any mess
SECRET = "sk-planted-secret-0815"
NAMES = st.sampled_from([
    "model_list", "model_name", "litellm_params", "model_info", "router_settings", "litellm_settings", "model", "api_key", "api_base",
    "rpm", "weight", "order", "timeout", "stream_timeout", "temperature", "max_tokens", "stop", "thinking", "extra_headers", "extra_body",
    "input_cost_per_token", "output_cost_per_token", "fallbacks", "default_fallbacks", "routing_strategy", "num_retries", "allowed_fails",
    "cooldown_time", "redis_url", "redis_host", "redis_password", "model_group_alias", "id", "mode", "custom_llm_provider", "reasoning_effort",
    "max_parallel_requests", "max_input_tokens", "seed", "top_p", "service_tier", SECRET,
])  # fmt: skip
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from([
        SECRET, f"Bearer {SECRET}", f"redis://:{SECRET}@h:1", f"x {SECRET} y", "os.environ/X", "os.environ/a-b", "${X}", "openai/*", "*",
        "openai/m", "gpt-4o", "claude-x", "azure/d", "ollama/m", "gemini/g", "hosted_vllm/v", "anthropic", "main", "http://h:1/v1", "1e-6",
        "redis://h:1", "latency-based-routing", "a: b # c", "\ud800", "\ufffe", "chat", 10**20, 0, 1, 30,
    ])
)  # fmt: skip
MESS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=5), inner, max_size=6),
    max_leaves=12,
)
PARAMS = st.fixed_dictionaries(
    {
        "model": st.sampled_from(
            ["openai/m", "gpt-4o", "anthropic/claude-x", "azure/d", "ollama/m", "hosted_vllm/v", "gemini/g"]
        )
        | SCALARS
    }
)
ENTRY = st.builds(
    lambda name, params, more, info: {"model_name": name, "litellm_params": {**more, **params}, "model_info": info},
    st.sampled_from(["main", "main", "other"]), PARAMS, st.dictionaries(NAMES, MESS, max_size=8), MESS,
)  # fmt: skip
LIKELY = st.builds(
    lambda entries, router, rest: {**rest, "model_list": entries, "router_settings": router},
    st.lists(ENTRY, min_size=1, max_size=3), st.dictionaries(NAMES, MESS, max_size=6) | MESS, st.dictionaries(NAMES, MESS, max_size=3),
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=LIKELY | MESS)
def test_any_mess_is_a_file_that_loads_or_one_line(typed, tmp_path, monkeypatch, content):
    """Whatever the file holds, the command writes settings that load, or one line of error; never a traceback, never a secret."""
    path, new = tmp_path / "config.yaml", tmp_path / "new.yaml"
    path.write_text(yaml.safe_dump(content))
    ran = typed("import-litellm", path)
    assert SECRET not in ran.out + ran.err
    assert "planted" not in ran.out + ran.err
    if ran.code:
        assert (ran.code, ran.out) == (2, "")
        assert re.fullmatch(r"error: .+\n", ran.err), ran.err
        return
    new.write_text(ran.out, encoding="utf-8")
    for name in {*VARIABLE.findall(ran.out), "OPENAI_API_KEY", "ANTHROPIC_API_KEY"}:
        monkeypatch.setenv(name, "redis://h:1" if "backend: ${" in ran.out else "http://x")
    found = read_yaml(new, KNOWN)
    check_settings(found)
    if all(each.model.partition(":")[0] in BUILT for each in found["providers"]):
        monkeypatch.setattr(memory, "_STORES", {})
        ResilientChatModel(**{**found, "backend": "memory://"})


def test_a_conversion_is_pure():
    """Converting changes nothing of what it is given."""
    content = yaml.safe_load(FILE)
    before = yaml.safe_dump(content)
    given_content = cleaned(content, Redactor({}))
    assert command.converted(given_content, None) == command.converted(given_content, None)
    assert yaml.safe_dump(content) == before
    with pytest.raises(SettingsError, match="config"):
        command.converted(Cleaned("text", frozenset()), None)
