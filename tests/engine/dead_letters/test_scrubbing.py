"""Credentials are dropped by their names, their types and their places in a URL; what a model is asked is left alone."""

import json

import pytest
from pydantic import SecretStr

from langchain_resilient.engine.dead_letters.scrubbing import scrubbed, scrubbed_record, smells

SECRET = "sk-planted-0123456789"
CREDENTIALS = [
    "api_key", "apiKey", "openai_api_key", "OPENAI_API_KEY", "x-api-key", "apikey", "azure_ad_token", "access_token", "accessToken", "token",
    "Authorization", "auth", "client_secret", "secret", "aws_secret_access_key", "password", "passwd", "db_password", "headers",
    "default_headers", "extra_headers", "x-headers", "Cookie", "credentials", "key", "keys", "api_keys", "private_key", "HTTPAuth", "bearer",
]  # fmt: skip
HARMLESS = [
    "max_tokens", "max_completion_tokens", "tokens", "tokenizer", "logprobs", "prompt_cache_key", "stop", "keyword", "monkey", "author",
    "authority", "secretary", "temperature", "model", "headline", "stop_token", "",
]  # fmt: skip


@pytest.mark.parametrize("name", CREDENTIALS)
def test_names_of_credentials(name):
    """What stands under such a name is dropped, at any depth, whatever it is."""
    assert smells(name)
    for planted in (SECRET, [SECRET], {"Bearer": SECRET}):
        content = {"messages": [], "parameters": {"deep": [{"er": {name: planted}}], name: planted}, name: planted}
        assert scrubbed(content) == {"messages": [], "parameters": {"deep": [{"er": {}}]}}


@pytest.mark.parametrize("name", HARMLESS)
def test_names_of_parameters(name):
    """A parameter whose name only resembles such a word is kept."""
    assert scrubbed({"messages": [], "parameters": {name: 5}})["parameters"] == {name: 5}


def test_secrets_by_their_type():
    """What is typed as a secret is dropped wherever it stands, in messages too."""
    content = {
        "messages": [{"content": "hi", "additional": SecretStr(SECRET)}],
        "parameters": {"a": SecretStr(SECRET), "b": [SecretStr(SECRET), 1], "c": (2, 3)},
    }
    assert scrubbed(content) == {"messages": [{"content": "hi"}], "parameters": {"b": [1], "c": [2, 3]}}


def test_messages_are_left_alone():
    """What people wrote, and what tools were called with, is not judged by names: the same request could not be asked again."""
    messages = [{"content": "https://me:pw@host", "tool_calls": [{"args": {"password": "x", "token": "y"}}]}]
    assert scrubbed({"messages": messages, "parameters": {}})["messages"] == messages


def test_credentials_in_urls():
    """A login and a key in a URL are dropped, and the rest of it is kept."""
    parameters = {"base_url": f"https://me:{SECRET}@host:8/v1?version=2&api-key={SECRET}&sig={SECRET}#top"}
    assert scrubbed({"messages": [], "parameters": parameters})["parameters"] == {
        "base_url": "https://host:8/v1?version=2&api-key=&sig=#top"
    }


def test_a_tools_schema_keeps_its_arguments():
    """A tool may have an argument that is called password: its schema stays, but no value that stands in it."""
    argument = {"type": "string", "default": SECRET, "examples": [SECRET], "description": "yours"}
    schema = {
        "type": "object",
        "properties": {"password": argument, "api_key": SECRET, "sort_key": {"enum": ["name", "age"]}},
        "$defs": {"ApiKey": {"type": "string"}},
    }
    found = scrubbed({"messages": [], "parameters": {"tools": [{"function": {"parameters": schema}}]}})
    assert SECRET not in json.dumps(found)
    kept = found["parameters"]["tools"][0]["function"]["parameters"]
    assert kept["properties"] == {
        "password": {"type": "string", "description": "yours"}, "sort_key": {"enum": ["name", "age"]},
    }  # fmt: skip
    assert kept["$defs"] == {"ApiKey": {"type": "string"}}


def test_an_attempts_record_is_plain():
    """Of an attempt, plain values are kept; credentials, and what JSON does not have, are not."""
    record = {
        "provider": "a",
        "seconds": 1.5,
        "status": 503,
        "limit": None,
        "api_key": SECRET,
        "error": ValueError(SECRET),
        "more": {"x": 1},
    }
    assert scrubbed_record(record) == {"provider": "a", "seconds": 1.5, "status": 503, "limit": None}


def test_the_callers_own_is_not_touched():
    """Scrubbing makes a copy: the request that is still on its way keeps its key."""
    parameters = {"api_key": SECRET, "deep": {"token": SECRET}}
    scrubbed({"messages": [], "parameters": parameters})
    assert parameters == {"api_key": SECRET, "deep": {"token": SECRET}}
