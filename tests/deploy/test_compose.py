"""The compose file, as far as it can be checked without Docker: its shape, what it mounts, what it names. Nobody brings it up here."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


def mounts(service: str) -> dict[str, str]:
    """Where in the container each file of the repository is."""
    found = {}
    for volume in SERVICES[service].get("volumes", []):
        source, target, *_ = volume.split(":")
        found[target] = source
    return found


def test_the_four_services_are_there_and_know_one_another():
    """Each name that a service depends on, or that a URL names, is a service; each named volume is declared."""
    assert set(SERVICES) == {"app", "valkey", "prometheus", "grafana"}
    assert set(COMPOSE) == {"name", "services", "volumes"}
    for name, service in SERVICES.items():
        assert set(service.get("depends_on", [])) <= set(SERVICES), name
    assert SERVICES["app"]["environment"]["REDIS_URL"] == "redis://valkey:6379/0"
    named = {source for service in SERVICES for source in mounts(service).values() if not source.startswith(".")}
    assert named == set(COMPOSE["volumes"])


def test_images_are_pinned_and_ports_are_this_machines_own():
    """A tag with a full version, in the Dockerfile too; ports are published on the loopback address and none twice."""
    images = [service["image"] for service in SERVICES.values() if "image" in service] + re.findall(
        r"^FROM (\S+)", DOCKERFILE, re.MULTILINE
    )
    assert len(images) == 4
    for image in images:
        assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+(-\w+)?", image), image
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in published)
    assert len(set(published)) == len(published) == 3


@pytest.mark.parametrize("service", SERVICES)
def test_every_mounted_file_exists(service: str):
    """A file that is not there would be mounted as an empty directory."""
    for source in mounts(service).values():
        if source.startswith("."):
            assert (DEPLOY / source).is_file(), source


def test_prometheus_finds_its_rules_and_the_application():
    """The rule file lies beside the configuration in the container, and the target is the application's service and port."""
    files = mounts("prometheus")
    configuration = yaml.safe_load((DEPLOY / files["/etc/prometheus/prometheus.yml"]).read_text())
    for rule_file in configuration["rule_files"]:
        assert f"/etc/prometheus/{rule_file}" in files
    [scraped] = configuration["scrape_configs"]
    assert scraped["static_configs"] == [{"targets": [f"app:{SERVICES['app']['environment']['PORT']}"]}]


def test_grafana_finds_prometheus_and_the_dashboard():
    """The provisioned source is the dashboard's default and Prometheus's service; the dashboard lies where Grafana is told to look."""
    files = mounts("grafana")
    under = "/etc/grafana/provisioning"
    [source] = yaml.safe_load((DEPLOY / files[f"{under}/datasources/prometheus.yaml"]).read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    [path] = [it for it in files if it.endswith("dashboard.json")]
    [variable] = [
        it for it in json.loads((DEPLOY / files[path]).read_text())["templating"]["list"] if it["name"] == "datasource"
    ]
    assert (variable["query"], variable["current"]["value"]) == (source["type"], source["uid"])
    [provider] = yaml.safe_load((DEPLOY / files[f"{under}/dashboards/files.yaml"]).read_text())["providers"]
    assert str(Path(path).parent) == provider["options"]["path"]
    assert SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == path


def test_the_image_holds_what_the_application_needs():
    """What is copied exists, and is all that the build reads; the extras are the package's, and cover what the application imports."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    copied = {source for line in re.findall(r"^COPY (.+)", DOCKERFILE, re.MULTILINE) for source in line.split()[:-1]}
    assert all((ROOT / source).exists() for source in copied)
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {
        "pyproject.toml",
        project["project"]["readme"],
        *project["project"]["license-files"],
        *wheel,
        "deploy/app.py",
    } == copied
    [extras] = re.findall(r"'\.\[(.+)\]'", DOCKERFILE)
    assert set(extras.split(",")) <= set(project["project"]["optional-dependencies"])
    assert {"openai", "anthropic", "ollama", "redis", "prometheus"} == set(extras.split(","))
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in ast.walk(ast.parse((DEPLOY / "app.py").read_text())) if isinstance(node, (ast.Import, ast.ImportFrom))
    }  # fmt: skip
    assert {"prometheus_client", "langchain_resilient"} <= imported
    assert not imported & {"fastapi", "uvicorn", "yaml", "tests", "httpx"}


def test_the_application_reads_the_environment_that_it_is_given():
    """Each variable of the service is one that it knows."""
    known = set(re.findall(r'os\.environ\.get\("(\w+)"', (DEPLOY / "app.py").read_text()))
    assert set(SERVICES["app"]["environment"]) <= known
