"""The level table of DESIGN section 2 and what checks sources against it. `test_architecture.py` applies it.

A module imports only from lower lines. Every import counts: at the top, inside a function, under `TYPE_CHECKING`,
and `import_module("literal")`. That importing a submodule also runs its packages' `__init__` does not.
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

TOP = "langchain_resilient"
ENGINE = f"{TOP}.engine"

# Every module has a line here: an exact name, or a pattern where the design has one. A pattern's modules may import
# one another; other modules of one line may not, save on line 9 inside one package.
LINES: dict[str, float] = {
    TOP: 11,  # public names, resolved lazily: nothing inside the package imports them from here
    f"{TOP}.cli": 10.6,  # the command stands on everything, and nothing on it
    f"{TOP}.cli.*": 10.6,
    f"{TOP}.demo": 10.5,  # plays an outage on the fakes, with the real chat model
    f"{TOP}.demo.*": 10.5,
    f"{TOP}.testing": 10,  # fakes stand on everything, and nothing that is shipped for production on them
    f"{TOP}.testing.*": 10,
    f"{TOP}.middleware": 9.4,  # the chat model's engine around an agent's own calls: nothing on line 9 knows of it
    f"{TOP}.middleware.wrapper": 9.3,
    f"{TOP}.middleware.attempts": 9.2,
    f"{TOP}.middleware.asked": 9.1,
    f"{TOP}.middleware.shown": 9.1,
    f"{TOP}.middleware.alone": 9.1,
    f"{TOP}.chat_model": 9,
    f"{TOP}.binding": 9,
    f"{TOP}.structured": 9,
    f"{TOP}.unseen": 9,
    f"{TOP}.tracing": 9,
    f"{TOP}.messages": 9,
    f"{TOP}.messages.*": 9,
    f"{TOP}.upstream": 9,
    f"{TOP}.continuing": 9,
    f"{TOP}.offloop": 9,
    f"{TOP}.hanging_up": 9,
    f"{TOP}.limiter": 9,
    f"{TOP}.raised": 9,
    f"{TOP}.letters": 9,
    f"{TOP}.keyed": 8.5,  # litellm_hooks uses it too: no LangChain, but for who asks for one of its limiters
    f"{TOP}.one_key": 8.4,
    f"{TOP}.admission": 8.3,
    f"{TOP}.providers": 9,
    f"{TOP}.identity": 9,
    f"{TOP}.call": 9,
    f"{TOP}.config": 9,
    "litellm_hooks": 9,
    "litellm_hooks.*": 9,
    ENGINE: 8,
    f"{ENGINE}.drive": 7.3,
    f"{ENGINE}.drive.blocking": 7.2,
    f"{ENGINE}.drive.awaiting": 7.2,
    f"{ENGINE}.drive.threads": 7.1,
    f"{ENGINE}.drive.common": 7,
    f"{ENGINE}.drive.cancelling": 7,
    f"{ENGINE}.retrying": 7,  # the decorator: a small driver of its own
    f"{ENGINE}.store.opening": 7.1,
    f"{ENGINE}.store.redis": 7,
    f"{ENGINE}.store.redis.store": 7,
    f"{ENGINE}.store.redis.tenants": 7,
    f"{ENGINE}.store.redis.mirror": 6.96,
    f"{ENGINE}.store.redis.debts": 6.94,
    f"{ENGINE}.store.redis.exchange": 6.94,
    f"{ENGINE}.store.redis.post": 6.9,  # what carries it all
    f"{ENGINE}.store.redis.post.courier": 6.8,
    f"{ENGINE}.store.redis.post.porter": 6.78,
    f"{ENGINE}.store.redis.post.carriage": 6.76,
    f"{ENGINE}.store.redis.post.mailbag": 6.74,
    f"{ENGINE}.store.redis.post.letters": 6.7,
    f"{ENGINE}.store.redis.post.subscription": 6.6,
    f"{ENGINE}.store.redis.post.line": 6.6,
    f"{ENGINE}.store.redis.post.breaker": 6.6,
    f"{ENGINE}.store.redis.post.dial": 6.5,
    f"{ENGINE}.store.redis.post.callbacks": 6.5,
    f"{ENGINE}.store.redis.post.resp": 6.4,
    f"{ENGINE}.store.redis.post.troubles": 6.3,
    f"{ENGINE}.observe": 7,
    f"{ENGINE}.observe.*": 7,
    f"{ENGINE}.dead_letters": 7,
    f"{ENGINE}.dead_letters.*": 7,
    f"{ENGINE}.plan": 6,
    f"{ENGINE}.plan.story": 5.9,
    f"{ENGINE}.plan.racing": 5.7,
    f"{ENGINE}.plan.keeping": 5.2,
    f"{ENGINE}.plan.recovery": 5.6,
    f"{ENGINE}.plan.admission": 5.5,
    f"{ENGINE}.plan.settling": 5.5,
    f"{ENGINE}.plan.relay": 5.5,
    f"{ENGINE}.plan.telling": 5,
    f"{ENGINE}.plan.verdict": 5.2,
    f"{ENGINE}.plan.journey": 5,
    f"{ENGINE}.store": 5.5,
    f"{ENGINE}.store.memory": 6,
    f"{ENGINE}.store.redis.asking": 5.8,
    f"{ENGINE}.store.redis.lines": 5.7,
    f"{ENGINE}.store.redis.wire": 5.6,
    f"{ENGINE}.store.redis.sketches": 5,
    f"{ENGINE}.store.redis.hearers": 5,
    f"{ENGINE}.store.redis.fleet": 2,
    f"{ENGINE}.store.state": 5,
    f"{ENGINE}.store.account": 4,
    f"{ENGINE}.store.tenants": 5,
    f"{ENGINE}.store.turn": 0,
    f"{ENGINE}.store.forks": 0,
    f"{ENGINE}.store.once": 0.1,
    f"{ENGINE}.effects": 3,
    f"{ENGINE}.policy": 2,
    f"{ENGINE}.plan.course": 2,
    f"{ENGINE}.circuit": 1,
    f"{ENGINE}.quota": 1,
    f"{ENGINE}.latency": 1,
    f"{ENGINE}.backoff": 1,
    f"{ENGINE}.budget": 1,
    f"{ENGINE}.seam": 1,
    f"{ENGINE}.hedge": 1,
    f"{ENGINE}.histogram": 0.9,
    f"{ENGINE}.naming": 1,
    f"{ENGINE}.lateness": 1.1,
    f"{ENGINE}.routing": 1,
    f"{ENGINE}.classify": 1,
    f"{ENGINE}.classify.judgement": 0.9,
    f"{ENGINE}.classify.tables": 0.8,
    f"{ENGINE}.classify.evidence": 0.8,
    f"{ENGINE}.classify.kinds": 0.7,
    f"{ENGINE}.classify.retry_after": 0.6,
    f"{ENGINE}.classify.headroom": 0.5,
    f"{ENGINE}.classify.hint_headers": 0.4,  # which headers count, and one written wait or moment
    f"{ENGINE}.errors": 0,
    f"{ENGINE}.events": 0,
}

# The first match is what a module may import beside the standard library and these two packages.
THIRD_PARTY: dict[str, set[str]] = {
    f"{ENGINE}.store.redis.post.dial": {"redis"},
    f"{ENGINE}.dead_letters.redis": {"redis"},
    f"{ENGINE}.dead_letters.sealing": {"cryptography"},
    f"{ENGINE}.observe.prometheus": {"prometheus_client"},
    f"{ENGINE}.observe.instruments": {"prometheus_client"},
    f"{ENGINE}.observe.opentelemetry": {"opentelemetry"},
    f"{ENGINE}*": set(),
    f"{TOP}.config": {"pydantic", "pydantic_core", "yaml"},  # litellm_hooks uses it: no LangChain
    f"{TOP}.middleware.shown": {"langchain_core"},
    f"{TOP}.middleware*": {"langchain", "langchain_core", "langgraph"},
    f"{TOP}.providers": {"langchain", "langchain_core"},  # init_chat_model, which turns a spec into a model
    f"{TOP}.unseen": {"langchain_core", "langsmith"},
    f"{TOP}.tracing": {"langchain_core", "langsmith"},
    f"{TOP}.admission": {"starlette"},  # where somebody asks for a FastAPI dependency
    f"{TOP}.cli.import_litellm": {"yaml"},
    f"{TOP}.cli*": {"langchain_core", "pydantic", "rich", "typer"},
    f"{TOP}.demo*": {
        "langchain_anthropic",
        "langchain_core",
        "langchain_ollama",
        "langchain_openai",
        "matplotlib",
        "rich",
    },
    f"{TOP}.testing*": {"langchain_core", "pydantic"},
    f"{TOP}.*": {"langchain_core", "pydantic"},
    "litellm_hooks.tenants": {"litellm", "fastapi"},  # the error that the Proxy turns into a refusal
    "litellm_hooks.proxy": {"litellm", "yaml"},  # values in the environment are YAML's, as in the file
    "litellm_hooks*": {"litellm"},
}


def place_of(module: str) -> str | None:
    """The entry of LINES that a module falls under."""
    if module in LINES:
        return module
    return next((pattern for pattern in LINES if "*" in pattern and fnmatchcase(module, pattern)), None)


def imports_of(source: str, module: str, known: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """Every module that a source imports, with the line number; names of submodules are resolved through `known`."""
    is_package = any(name.startswith(f"{module}.") for name in known)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                home = parts[: len(parts) - node.level + is_package]
                base = ".".join([*home, base]) if base else ".".join(home)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield (full if full in known else base), node.lineno
        elif isinstance(node, ast.Call) and _is_dynamic_import(node.func) and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield name.value, node.lineno


def _is_dynamic_import(function: ast.expr) -> bool:
    names = {"import_module", "__import__"}
    return (isinstance(function, ast.Name) and function.id in names) or (
        isinstance(function, ast.Attribute) and function.attr in names
    )


def objection(importer: str, imported: str) -> str | None:
    """Why one of our modules may not import another of ours, or None if it may."""
    above, below = place_of(importer), place_of(imported)
    if above is None or below is None:
        return None if below else f"imports {imported}, which is unlisted or does not exist"
    package, other = importer.partition(".")[0], imported.partition(".")[0]
    if package != other and not (package == "litellm_hooks" and (LINES[below] < 9 or imported == f"{TOP}.config")):
        return f"imports {imported}: neither package imports the other's line 9, except langchain_resilient.config"
    if LINES[below] > LINES[above]:
        return f"is on line {LINES[above]:g} and imports {imported} from line {LINES[below]:g}: only from lower lines"
    if LINES[below] < LINES[above] or LINES[above] == 9:
        return None
    if "*" in above + below and above.removesuffix(".*") == below.removesuffix(".*"):
        return None
    return f"imports {imported} from its own line {LINES[above]:g}: only from lower lines"


def violations(sources: Mapping[str, str]) -> list[str]:
    """All that is wrong with a set of modules, given as name and source; empty if nothing is."""
    found, graph = [], {}
    for module, source in sorted(sources.items()):
        if place_of(module) is None:
            found.append(f"{module} is unlisted: give it a line in tests/architecture.py (and in DESIGN section 2)")
        graph[module] = set()
        allowed = next((names for pattern, names in THIRD_PARTY.items() if fnmatchcase(module, pattern)), set())
        for imported, lineno in dict.fromkeys(imports_of(source, module, sources)):  # once for each name it takes
            root = imported.split(".")[0]
            if root in (TOP, "litellm_hooks"):
                graph[module].add(imported)
                if why := objection(module, imported):
                    found.append(f"{module}:{lineno} {why}")
            elif root not in sys.stdlib_module_names and root not in allowed:
                has = ", ".join(sorted(allowed)) or "the standard library only"
                found.append(f"{module}:{lineno} imports {root}: it may import {has}")
    found += [f"import cycle: {' > '.join(cycle)}" for cycle in cycles(graph)]
    fakes = [name for name in sources if name.startswith(f"{TOP}.testing")]
    langchain = [
        name
        for name in fakes
        if any(
            to == "langchain_core" or to.startswith("langchain_core.")
            for to, _ in imports_of(sources[name], name, sources)
        )
    ]
    if len(langchain) > 1:
        found.append(f"langchain_core is imported by {', '.join(sorted(langchain))}: keep it in one file of testing")
    return found


def cycles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Each cycle that a depth-first walk closes, as the path from a module back to itself."""
    found: list[list[str]] = []
    finished: set[str] = set()

    def walk(module: str, path: list[str]) -> None:
        if module in path:
            found.append([*path[path.index(module) :], module])
        elif module not in finished:
            for target in sorted(graph.get(module, ())):
                walk(target, [*path, module])
            finished.add(module)

    for module in sorted(graph):
        walk(module, [])
    return found
