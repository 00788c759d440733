"""Imports point downwards (DESIGN section 2), and the checker that says so is itself shown to fail."""

from pathlib import Path

import pytest

from tests.architecture import violations

ROOT = Path(__file__).parent.parent


def sources() -> dict[str, str]:
    """Every module of both packages, by name."""
    files = [path for package in ("langchain_resilient", "litellm_hooks") for path in (ROOT / package).rglob("*.py")]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]
    return {name: path.read_text(encoding="utf-8") for name, path in zip(names, files, strict=True)}


def test_modules_import_only_from_lower_lines():
    """A module imports only what stands on a lower line, its own third parties, and never in a cycle."""
    found = violations(sources())
    assert not found, "\n" + "\n".join(found)


ENGINE = "langchain_resilient.engine"
BASE = {
    "langchain_resilient": "",
    "langchain_resilient.config": "",
    "langchain_resilient.chat_model": "",
    "langchain_resilient.messages": "",
    "langchain_resilient.testing": "",
    "litellm_hooks": "",
    "litellm_hooks.strategy": "",
    ENGINE: "",
    f"{ENGINE}.drive": "",
    f"{ENGINE}.plan": "",
    f"{ENGINE}.retrying": "",
    f"{ENGINE}.circuit": "",
    f"{ENGINE}.quota": "",
    f"{ENGINE}.errors": "",
    f"{ENGINE}.events": "",
    f"{ENGINE}.store": "",
    f"{ENGINE}.store.memory": "",
    f"{ENGINE}.observe": "",
    f"{ENGINE}.observe.log": "",
}

FORBIDDEN = {
    "a higher line": ({f"{ENGINE}.circuit": f"from {ENGINE}.plan import x"}, "imports langchain_resilient.engine.plan"),
    "its own line": ({f"{ENGINE}.circuit": f"import {ENGINE}.quota"}, "from its own line 1"),
    "its own line 7, across subpackages": ({f"{ENGINE}.observe.log": f"import {ENGINE}.retrying"}, "its own line 7"),
    "a submodule by its package": ({f"{ENGINE}.circuit": f"from {ENGINE} import plan"}, "from line 6"),
    "relative": ({f"{ENGINE}.circuit": "from . import plan"}, "from line 6"),
    "relative, in a package": ({f"{ENGINE}.store": "from .memory import MemoryStore"}, "from line 6"),
    "relative, two up": ({f"{ENGINE}.store.memory": "from ..drive import run"}, "from line 7.3"),
    "inside a function": ({f"{ENGINE}.plan": f"def f():\n    from {ENGINE}.drive import run"}, "plan:2 "),
    "under TYPE_CHECKING": (
        {f"{ENGINE}.plan": f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import {ENGINE}.drive"},
        "plan:3 ",
    ),
    "import_module": (
        {f"{ENGINE}.plan": f"import importlib\nimportlib.import_module('{ENGINE}.drive')"},
        "from line 7.3",
    ),
    "the public names from inside": (
        {"langchain_resilient.chat_model": "from langchain_resilient import Provider"},
        "imports langchain_resilient from line 11",
    ),
    "the fakes": ({"langchain_resilient.chat_model": "import langchain_resilient.testing"}, "from line 10"),
    "the fakes from the engine": ({f"{ENGINE}.drive": "import langchain_resilient.testing"}, "from line 10"),
    "LangChain's line 9 from LiteLLM's": (
        {"litellm_hooks.strategy": "import langchain_resilient.chat_model"},
        "neither package",
    ),
    "LiteLLM's line 9 from LangChain's": ({"langchain_resilient.messages": "import litellm_hooks"}, "neither package"),
    "a third party from a pure module": ({f"{ENGINE}.circuit": "import pydantic"}, "the standard library only"),
    "LangChain in the engine": ({f"{ENGINE}.drive": "from langchain_core.messages import X"}, "imports langchain_core"),
    "LangChain in config": ({"langchain_resilient.config": "import langchain_core"}, "imports langchain_core"),
    "LiteLLM in the chat model": ({"langchain_resilient.chat_model": "import litellm"}, "imports litellm"),
    "LangChain in two fakes": (
        {
            "langchain_resilient.testing.a": "import langchain_core",
            "langchain_resilient.testing.b": "import langchain_core",
        },
        "keep it in one file",
    ),
    "a cycle on line 9": (
        {
            "langchain_resilient.chat_model": "import langchain_resilient.messages",
            "langchain_resilient.messages": "def f():\n    import langchain_resilient.chat_model",
        },
        "import cycle: langchain_resilient.chat_model > langchain_resilient.messages > langchain_resilient.chat_model",
    ),
    "an unlisted module": ({f"{ENGINE}.helpers": ""}, "langchain_resilient.engine.helpers is unlisted"),
    "what does not exist": ({f"{ENGINE}.drive": f"import {ENGINE}.missing"}, "unlisted or does not exist"),
}

ALLOWED = {
    "nothing": {},
    "lower lines": {f"{ENGINE}.drive": f"from {ENGINE} import plan\nfrom {ENGINE}.store.memory import M"},
    "a store what it applies": {f"{ENGINE}.store.memory": f"from {ENGINE}.store import Store\nimport {ENGINE}.circuit"},
    "line 9 its own line": {"langchain_resilient.chat_model": "from langchain_resilient import messages, config"},
    "config by LiteLLM": {"litellm_hooks.strategy": "from langchain_resilient.config import S\nimport litellm"},
    "the engine by LiteLLM": {"litellm_hooks.strategy": f"from {ENGINE}.drive import run\nimport litellm_hooks"},
    "one observer another": {f"{ENGINE}.observe.log": f"from {ENGINE}.observe import x"},
    "fakes everything below": {
        "langchain_resilient.testing.model": "import langchain_core, langchain_resilient.config"
    },
    "a name that is no module": {f"{ENGINE}.circuit": f"from {ENGINE}.errors import drive"},
}


@pytest.mark.parametrize(("changed", "expected"), FORBIDDEN.values(), ids=FORBIDDEN)
def test_checker_objects_to(changed: dict[str, str], expected: str):
    """What the table forbids is reported once, with the module, the line and the reason."""
    found = violations(BASE | changed)
    assert len([line for line in found if expected in line]) == 1, found


@pytest.mark.parametrize("changed", ALLOWED.values(), ids=ALLOWED)
def test_checker_accepts(changed: dict[str, str]):
    """What the table allows is not reported."""
    assert violations(BASE | changed) == []
