"""The package imports little, the engine needs nothing, and a wheel holds all and runs the README's first example."""

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.architecture import ENGINE, THIRD_PARTY

ROOT = Path(__file__).parent.parent
PACKAGES = ("langchain_resilient", "litellm_hooks")


def run(*command: object, timeout: float = 50, **options: object) -> str:
    """What a command printed; its whole output in the failure when it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False, **options)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_importing_the_package_imports_no_heavy_module():
    """`import langchain_resilient` loads none of the modules that would push it over 30 ms, nor a client of anybody."""
    heavy = {"asyncio", "httpx", "httpx2", "langgraph", "langsmith", "litellm", "pydantic", "redis", "ssl", "yaml"}
    # The difference, because a .pth file of the environment may load something before us.
    program = "import sys; bare = set(sys.modules); import langchain_resilient; print(*(set(sys.modules) - bare))"
    loaded = {name.split(".")[0] for name in run(sys.executable, "-c", program, cwd=ROOT).split()}
    assert "langchain_resilient" in loaded
    foreign = {name for name in loaded if name.startswith("langchain") and name != "langchain_resilient"}
    assert not (loaded & heavy) | foreign


def test_the_engine_imports_with_every_third_party_blocked():
    """All engine modules but the edges to a back end work where only the standard library can be imported."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / "langchain_resilient" / "engine").rglob("*.py"))
    ]
    free = [
        name for name in modules if not next(allow for entry, allow in THIRD_PARTY.items() if fnmatchcase(name, entry))
    ]
    assert ENGINE in free
    program = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        if root != "langchain_resilient" and root not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"blocked: {{name}}", name=name)
sys.meta_path.insert(0, Block())
import importlib
for name in {free!r}:
    importlib.import_module(name)
"""
    run(sys.executable, "-c", program, cwd=ROOT)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    target = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", target, ROOT)
    (built,) = target.glob("*.whl")
    return built


def test_wheel_holds_every_file_of_both_packages_and_no_other(wheel: Path):
    """Sources, py.typed and the Lua scripts are shipped; tests and tools are not."""
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()]
    expected = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert shipped == expected
    assert {f"{package}/py.typed" for package in PACKAGES} <= shipped


def test_wheel_states_its_extras_and_terms(wheel: Path):
    """The metadata has each documented extra, the supported Pythons and the licence; LiteLLM and clients stay extras."""
    metadata = metadata_of(wheel)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {
        "openai",
        "anthropic",
        "ollama",
        "litellm",
        "redis",
        "prometheus",
        "opentelemetry",
        "encryption",
        "cli",
        "demo",
    } <= set(metadata.get_all("Provides-Extra"))
    assert set(metadata.get_all("Provides-Extra")) == set(project["optional-dependencies"])
    assert (metadata["Name"], metadata["Requires-Python"]) == ("langchain-resilient", ">=3.11")
    assert metadata["License-Expression"] == "MIT"
    always = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert {re.split(r"[<>=!~\[; ]", line)[0] for line in always} == {"langchain-core", "pydantic", "pyyaml"}


def metadata_of(wheel: Path) -> Message:
    """The parsed METADATA of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def first_example() -> str:
    """The first Python block of the README."""
    readme = ROOT / "README.md"
    assert readme.is_file(), "there is no README.md, whose first ```python block this test runs"
    block = re.search(r"^```python\n(.*?)^```$", readme.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert block, "README.md has no ```python block"
    return block[1]


def clean_environment(home: Path, outside_environment: dict[str, str], *requirements: str) -> Path:
    """The Python of a new environment with nothing but these; skips where no package index can be reached."""
    # No pip inside: this Python's pip fills it, so that the test also runs where ensurepip is missing.
    run(sys.executable, "-m", "venv", "--without-pip", home)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    outside_environment.pop("PYTHONPATH", None)
    outside = {"env": outside_environment, "cwd": home}
    try:
        run(*pip, "download", "--quiet", "--no-deps", "--dest", home, "typing-extensions", timeout=60, **outside)
    except (AssertionError, subprocess.TimeoutExpired) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no package index can be reached: {str(error).splitlines()[-1]}")
    run(*pip, "install", "--quiet", "--no-compile", *requirements, timeout=500, **outside)
    return python


@pytest.fixture(scope="session")
def clean_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory, outside_environment: dict[str, str]) -> Path:
    """The Python of a new environment with nothing but the wheel and two extras."""
    return clean_environment(tmp_path_factory.mktemp("clean"), outside_environment, f"{wheel}[openai,anthropic]")


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_readme_first_example_runs_verbatim_from_a_clean_install(clean_python: Path, tmp_path: Path):
    """`pip install 'langchain-resilient[openai,anthropic]'`, then the first example as printed, and it answers."""
    example = tmp_path / "example.py"
    example.write_text(first_example(), encoding="utf-8")
    from langchain_resilient.testing.fault_server import FaultServer

    with FaultServer() as server:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
            "OPENAI_API_KEY": "test-key",
            "OPENAI_BASE_URL": server.base_url("openai"),
            "ANTHROPIC_API_KEY": "test-key",
            "ANTHROPIC_BASE_URL": server.base_url("anthropic"),
        }
        printed = run(clean_python, example, cwd=tmp_path, env=environment)
    assert printed.strip(), "the example ran but printed nothing"


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_the_command_says_in_one_line_what_it_lacks(clean_python: Path, tmp_path: Path):
    """Installed without its extra, it names the extra and ends with 2, without a traceback."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(clean_python.with_name("langchain-resilient")), "demo"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: the command needs typer and rich: pip install 'langchain-resilient[cli]'\n"


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_the_demo_runs_from_a_clean_install(wheel: Path, tmp_path: Path, outside_environment: dict[str, str]):
    """`pip install 'langchain-resilient[demo]'`, then `langchain-resilient demo`: it plays, draws, and needs nothing else."""
    python = clean_environment(tmp_path / "demo", outside_environment, f"{wheel}[demo]")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = python.with_name("langchain-resilient")
    played = run(
        command, "demo", "--speed", "10", "--json", "--chart", tmp_path / "chart", cwd=tmp_path, env=environment
    )
    document = json.loads(played)
    assert document["complete"] and len(document["contenders"]) == 3
    assert {path.suffix for path in (tmp_path / "chart").iterdir()} == {".png", ".svg"}
    assert "langchain-resilient" in run(command, "--version", env=environment)


FLOOR = """
import asyncio
from langchain_resilient import AllProvidersFailedError, ResilientChatModel
from langchain_resilient.testing import ScriptedChatModel

dead = ScriptedChatModel(script=[ConnectionError("gone")], model_name="dead")
model = ResilientChatModel(providers=[dead, ScriptedChatModel(model_name="well")], max_retries=0)
print(model.invoke("Hi").content, asyncio.run(model.ainvoke("Hi")).content)
print("".join(chunk.content for chunk in model.stream("Hi")))
try:
    ResilientChatModel(providers=[dead, dead.model_copy(update={"model_name": "deader"})], max_retries=0).invoke("Hi")
except AllProvidersFailedError as error:
    print(len(error.exceptions))
"""


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_the_oldest_langchain_core_that_is_promised_works(
    wheel: Path, tmp_path: Path, outside_environment: dict[str, str]
):
    """langchain-core 1.0.0, without profiles and Model…Errors, answers, streams and fails as the newest does."""
    python = clean_environment(tmp_path / "floor", outside_environment, str(wheel), "langchain-core==1.0.0")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    assert run(python, "-c", FLOOR, cwd=tmp_path, env=environment).splitlines() == ["Hello. Hello.", "Hello.", "2"]
