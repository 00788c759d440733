"""What importing `litellm_hooks` brings along, and what it works without."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0].startswith("langchain") and name.partition(".")[0] != "langchain_resilient":
            raise ModuleNotFoundError(f"blocked: {name}", name=name)
sys.meta_path.insert(0, Block())
"""


def run(program: str) -> str:
    """What a program prints, in a Python of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_it_imports_neither_library():
    """`import litellm_hooks`, and a look at its names, load neither LiteLLM nor LangChain, nor anything else of a third party."""
    loaded = run(
        "import sys; bare = set(sys.modules); import litellm_hooks; dir(litellm_hooks); print(*(set(sys.modules) - bare))"
    )
    roots = {name.partition(".")[0] for name in loaded.split()}
    assert "litellm_hooks" in roots
    assert not {root for root in roots if root.startswith("langchain") or root == "litellm"}
    assert roots <= set(sys.stdlib_module_names) | {"litellm_hooks"}


def test_an_unknown_name_is_told():
    """A name that the package does not have is an AttributeError, as of any module."""
    assert "has no attribute 'nothing'" in run(
        "import litellm_hooks\ntry:\n    litellm_hooks.nothing\nexcept AttributeError as error:\n    print(error)"
    )


def test_it_works_without_langchain():
    """Where no LangChain can be imported a Router is installed on, and answers through the engine."""
    program = f"""{BLOCK}
import litellm, litellm_hooks
from langchain_resilient import capture_decisions
from langchain_resilient.testing import Fault, FaultServer
with FaultServer() as first, FaultServer() as second:
    first.always(Fault.status(503))
    entries = [
        {{"model_name": "main", "litellm_params": {{"model": "openai/gpt-4.1", "api_key": "k", "order": order, "api_base": one.base_url("openai")}}}}
        for order, one in enumerate((first, second))
    ]
    router = litellm.Router(model_list=entries)
    litellm_hooks.install(router, retry={{"base_delay": 0.0}})
    with capture_decisions() as decisions:
        answer = router.completion(model="main", messages=[{{"role": "user", "content": "hi"}}])
print(answer.choices[0].message.content, len(decisions), any(name.startswith("langchain_core") for name in sys.modules))
"""
    assert run(program).split("\n")[-2] == "Hello from the fault server. 1 False"
