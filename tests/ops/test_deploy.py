"""The deployment files, as far as they can be checked without the programs that read them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import jsonschema
import kubernetes_validate
import nats
import pytest
import typer
import yaml

from adapters.jetstream.client import Client
from adapters.jetstream.nats_py import find_streams
from adapters.jetstream.raw import RawStream
from adapters.jetstream.streams import STREAMS, set_up
from domain.log import OUTCOMES
from ops.cli import app
from ops.roles import EVERY, ROLES
from ops.servers.embedded import HOST, nats_server
from ops.settings import PREFIX, Settings
from tests.nats_cluster import free_ports, once_there

DEPLOY = Path(__file__).resolve().parents[2] / "ops" / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
KUSTOMIZATION = yaml.safe_load((DEPLOY / "kustomization.yaml").read_text())
SECRETS = re.findall(r"^([A-Z_]+)=$", (DEPLOY / "secrets.env.example").read_text(), re.MULTILINE)
SETTINGS = {PREFIX + name.upper() for name in Settings.model_fields}

Manifest = dict[str, Any]


def manifests() -> list[Manifest]:
    files = [DEPLOY / name for name in KUSTOMIZATION["resources"]] + [DEPLOY / "opensearch" / "opensearch.yaml"]
    return [manifest for file in files for manifest in yaml.safe_load_all(file.read_text())]


MANIFESTS = manifests()


def named(manifest: Manifest) -> str:
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def pods() -> Iterator[tuple[str, Manifest]]:
    for manifest in MANIFESTS:
        if "template" in manifest.get("spec", {}):
            yield named(manifest), manifest["spec"]["template"]["spec"]


def containers() -> Iterator[tuple[str, Manifest]]:
    for name, pod in pods():
        for container in pod["containers"]:
            yield name, container


# --- NATS -----------------------------------------------------------------------------------------------------


def environment(number: int, routes: list[int]) -> dict[str, str]:
    values = {name: f"secret{name.replace('_', '')}" for name in SECRETS}
    places = {
        f"NATS_ROUTE_{peer}": f"nats-route://route:{values['NATS_ROUTE_PASSWORD']}@{HOST}:{port}"
        for peer, port in enumerate(routes)
    }
    return {**os.environ, **values, **places, "SERVER_NAME": f"nats-{number}"}


def test_the_configuration_of_nats_is_valid() -> None:
    command = [nats_server(), "-t", "-c", str(DEPLOY / "nats.conf")]
    tried = subprocess.run(command, env=environment(0, [1, 2, 3]), capture_output=True, text=True, check=False)
    assert tried.returncode == 0, tried.stderr
    assert "is valid" in tried.stderr + tried.stdout


def test_the_configuration_of_nats_has_no_default_passwords() -> None:
    command = [nats_server(), "-t", "-c", str(DEPLOY / "nats.conf")]
    for name in (name for name in SECRETS if name.startswith("NATS_")):
        without = {key: value for key, value in environment(0, [1, 2, 3]).items() if key != name}
        tried = subprocess.run(command, env=without, capture_output=True, text=True, check=False)
        assert tried.returncode != 0
        assert name in tried.stderr


async def test_three_servers_of_this_configuration_become_a_cluster_that_keeps_three_copies(tmp_path: Path) -> None:
    async def quiet(error: Exception) -> None: ...

    with three_servers(tmp_path) as ports:
        password = environment(0, [])["NATS_SETUP_PASSWORD"]
        urls = [f"nats://setup:{password}@{HOST}:{port}" for port in ports]
        async with await nats.connect(urls, error_cb=quiet, max_reconnect_attempts=-1) as nc:
            js = nc.jetstream(timeout=10)
            await once_there(lambda: set_up(js, replicas=3))
            for stream in STREAMS:
                info = await once_there(partial(js.stream_info, str(stream.name)))
                assert info.config.num_replicas == 3
                assert info.cluster is not None
                assert {info.cluster.leader, *(peer.name for peer in info.cluster.replicas or [])} == {
                    "nats-0",
                    "nats-1",
                    "nats-2",
                }
        for port in ports:
            await assert_guests_are_served(port)


async def assert_guests_are_served(port: int) -> None:
    """By every server, whichever leads the streams."""
    passwords = environment(0, [])
    tenant = f"nats://tenant-default:{passwords['NATS_TENANT_DEFAULT_PASSWORD']}@{HOST}:{port}"
    async with await Client.connect(tenant) as client:
        id = str(uuid4())
        heard = await client.connection.subscribe(f"out.default.{id}")
        await client.connection.flush()
        acknowledged = await client.stream.publish(
            "cmd.default.s_default.app.create", b"{}", headers={"Headrace-Id": id}
        )
        assert acknowledged.stream == "COMMANDS"
        worker = f"nats://worker:{passwords['NATS_WORKER_PASSWORD']}@{HOST}:{port}"
        async with await nats.connect(worker) as nc:
            await nc.jetstream().publish(f"out.default.{id}", b'{"status": "accepted"}')
        assert (await heard.next_msg(5)).data == b'{"status": "accepted"}'
        assert await client.outcome(id) == {"status": "accepted"}
    async with await nats.connect(f"nats://archive:{passwords['NATS_ARCHIVE_PASSWORD']}@{HOST}:{port}") as nc:
        await find_streams(nc)
        source = RawStream(nc, OUTCOMES)
        last = await source.last()
        found = [message async for messages in source.read(last - 1, last) for message in messages]
        assert [message.subject for message in found] == [f"out.default.{id}"]


@contextmanager
def three_servers(folder: Path) -> Iterator[list[int]]:
    """Their ports for clients; the configuration is as it is but for addresses and the folder of the data."""
    ports = free_ports(9)
    clients, routes, monitors = ports[:3], ports[3:6], ports[6:]
    running = []
    try:
        for number, places in enumerate(zip(clients, routes, monitors, strict=True)):
            text = (DEPLOY / "nats.conf").read_text().replace('"/data"', f'"{folder / str(number)}"')
            for port, place in zip((4222, 6222, 8222), places, strict=True):
                assert f'"0.0.0.0:{port}"' in text
                text = text.replace(f"0.0.0.0:{port}", f"{HOST}:{place}")
            (folder / f"{number}.conf").write_text(text + f'\nlog_file: "{folder / str(number)}.log"\n')
            shutil.copy(DEPLOY / "accounts.conf", folder)
            command = [nats_server(), "-c", str(folder / f"{number}.conf")]
            running.append(subprocess.Popen(command, env=environment(number, routes)))
        yield clients
    finally:
        for server in running:
            server.kill()
            server.wait()
        shutil.rmtree(folder)


# --- compose --------------------------------------------------------------------------------------------------


def test_the_compose_file_follows_the_specification() -> None:
    schema = json.loads(Path(__file__).with_name("compose_spec.json").read_text())
    jsonschema.validate(COMPOSE, schema, jsonschema.Draft201909Validator)


def test_every_role_has_a_service_that_is_probed() -> None:
    for role in EVERY:
        service = COMPOSE["services"][role]
        assert service["command"] == ["worker", "--role", role]
        assert service["healthcheck"]["test"] == ["CMD", "headrace", "ping", "--role", role, "--here"]


def test_compose_names_only_what_there_is() -> None:
    for name, service in COMPOSE["services"].items():
        assert {config["source"] for config in service.get("configs", [])} <= set(COMPOSE["configs"]), name
        assert set(service.get("depends_on", {})) <= set(COMPOSE["services"]), name
        volumes = {volume.partition(":")[0] for volume in service.get("volumes", [])}
        assert {volume for volume in volumes if not volume.startswith("/")} <= set(COMPOSE["volumes"]), name
    for config in COMPOSE["configs"].values():
        assert (DEPLOY / config["file"]).is_file()
    build = COMPOSE["services"]["commands"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()


def test_compose_asks_for_the_secrets_of_the_example_and_no_others() -> None:
    used = set(re.findall(r"\$\{([A-Z_]+):\?\}", (DEPLOY / "compose.yaml").read_text()))
    assert used == set(SECRETS)


def test_compose_uses_settings_that_exist() -> None:
    for service in COMPOSE["services"].values():
        used = {name for name in service.get("environment", {}) if name.startswith(PREFIX)}
        assert used <= SETTINGS
        assert not used or {"HEADRACE_NATS_URL", "HEADRACE_POSTGRES_URL", "HEADRACE_SECRET_KEY"} <= used


# --- Kubernetes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("manifest", MANIFESTS, ids=named)
def test_a_manifest_follows_the_schema(manifest: Manifest) -> None:
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_the_kustomization_names_every_manifest_and_files_that_exist() -> None:
    assert sorted(KUSTOMIZATION["resources"]) == sorted(
        str(file.relative_to(DEPLOY)) for file in DEPLOY.glob("kubernetes/*.yaml")
    )
    for generator in KUSTOMIZATION["configMapGenerator"]:
        assert all((DEPLOY / file).is_file() for file in generator["files"])
    assert [generator["envs"] for generator in KUSTOMIZATION["secretGenerator"]] == [["secrets.env"]]


def test_opensearch_comes_with_all_the_rest_and_those_who_search_have_its_address() -> None:
    overlay = yaml.safe_load((DEPLOY / "opensearch" / "kustomization.yaml").read_text())
    assert overlay["resources"] == ["..", "opensearch.yaml"]
    patched = {
        f"{it['target']['kind']} {name}" for it in overlay["patches"] for name in it["target"]["name"].split("|")
    }
    assert patched == {"Deployment ingest", "Deployment answer", "Job setup"} <= {name for name, _ in containers()}
    [service] = [it for it in MANIFESTS if it["kind"] == "Service" and it["metadata"]["name"] == "opensearch"]
    for patch in overlay["patches"]:
        [operation] = yaml.safe_load(patch["patch"])
        assert operation["path"] == "/spec/template/spec/containers/0/env/-"
        assert operation["value"]["name"] in SETTINGS
        for number, url in enumerate(operation["value"]["value"].split(",")):
            assert url == f"http://opensearch-{number}.opensearch:{service['spec']['ports'][0]['port']}"


def test_every_role_has_a_deployment_that_is_probed() -> None:
    deployed = {}
    for name, container in containers():
        if container.get("args", [""])[0] == "worker":
            role = container["args"][2]
            deployed[role] = name
            for probe in ("startupProbe", "readinessProbe"):
                assert container[probe]["exec"]["command"] == ["headrace", "ping", "--role", role, "--here"]
    assert deployed == {role: f"Deployment {role}" for role in EVERY}


def test_the_embedding_model_gets_a_gpu() -> None:
    [embed] = [container for name, container in containers() if name == "Deployment embed"]
    assert embed["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_secrets_and_config_maps_that_pods_name_exist() -> None:
    config_maps = {generator["name"] for generator in KUSTOMIZATION["configMapGenerator"]}
    claims = {it["metadata"]["name"] for it in MANIFESTS if it["kind"] == "PersistentVolumeClaim"}
    used = set()
    for name, container in containers():
        for variable in container.get("env", []):
            if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                assert reference["name"] == "headrace", name
                used.add(reference["key"])
    assert used == set(SECRETS)
    for name, pod in pods():
        for volume in pod["volumes"]:
            assert volume.get("configMap", {"name": None})["name"] in {None, *config_maps}, name
            assert volume.get("persistentVolumeClaim", {"claimName": None})["claimName"] in {None, *claims}, name


def test_variables_in_values_are_defined_before_them() -> None:
    for name, container in containers():
        known: set[str] = set()
        for variable in container.get("env", []):
            assert set(re.findall(r"\$\(([A-Z_0-9]+)\)", variable.get("value", ""))) <= known, name
            known.add(variable["name"])


def test_pods_use_settings_that_exist_and_get_no_service_links() -> None:
    for name, container in containers():
        used = {it["name"] for it in container.get("env", []) if it["name"].startswith(PREFIX)}
        assert used <= SETTINGS, name
        assert ("headrace:" in container["image"]) == bool(used), name
    assert all(pod["enableServiceLinks"] is False for _, pod in pods())


def test_volumes_that_are_mounted_exist() -> None:
    for manifest in MANIFESTS:
        if "template" in manifest.get("spec", {}):
            pod = manifest["spec"]["template"]["spec"]
            claims = manifest["spec"].get("volumeClaimTemplates", [])
            known = {it["name"] for it in pod["volumes"]} | {it["metadata"]["name"] for it in claims}
            for container in pod["containers"]:
                assert {mount["name"] for mount in container["volumeMounts"]} == known, named(manifest)


def test_selectors_find_pods_and_ports() -> None:
    labels = {}
    ports: dict[str, set[str]] = {}
    for manifest in MANIFESTS:
        if "template" in manifest.get("spec", {}):
            template = manifest["spec"]["template"]
            labels[named(manifest)] = found = template["metadata"]["labels"]
            ports[found["app.kubernetes.io/name"]] = {
                port["name"] for container in template["spec"]["containers"] for port in container.get("ports", [])
            }
            if manifest["kind"] != "Job":
                assert manifest["spec"]["selector"]["matchLabels"].items() <= found.items()
    names = {label["app.kubernetes.io/name"] for label in labels.values()}
    for manifest in MANIFESTS:
        spec = manifest.get("spec", {})
        match manifest["kind"]:
            case "Service":
                name = spec["selector"]["app.kubernetes.io/name"]
                assert {port["name"] for port in spec["ports"]} <= ports[name]
            case "PodDisruptionBudget":
                assert spec["selector"]["matchLabels"]["app.kubernetes.io/name"] in names
            case "HorizontalPodAutoscaler":
                assert f"Deployment {spec['scaleTargetRef']['name']}" in labels
            case "NetworkPolicy" if spec.get("ingress"):
                name = spec["podSelector"]["matchLabels"]["app.kubernetes.io/name"]
                assert {port["port"] for rule in spec["ingress"] for port in rule["ports"]} <= ports[name]


# --- both -----------------------------------------------------------------------------------------------------


def commands() -> set[tuple[str, ...]]:
    """Return the arguments of the command line in all of these files."""
    found = {tuple(it["command"]) for it in COMPOSE["services"].values() if it.get("image", "").startswith("headrace")}
    found |= {tuple(it["healthcheck"]["test"][2:]) for name, it in COMPOSE["services"].items() if name in ROLES}
    found |= {tuple(it["args"]) for _, it in containers() if it["image"].startswith("headrace")}
    found |= {tuple(it["startupProbe"]["exec"]["command"][1:]) for name, it in containers() if name[11:] in ROLES}
    text = (DEPLOY / "Dockerfile").read_text()
    return found | {tuple(json.loads(text.partition("\nCMD ")[2].splitlines()[0]))}


@pytest.mark.parametrize("command", sorted(commands()), ids=shlex.join)
def test_a_command_is_one_of_ours(command: tuple[str, ...]) -> None:
    group: Any = typer.main.get_command(app)
    name, *options = command
    assert name in group.commands
    group.commands[name].make_context(name, list(options))


def test_images_have_versions_and_no_registry() -> None:
    images = {it["image"] for it in COMPOSE["services"].values()} | {it["image"] for _, it in containers()}
    text = (DEPLOY / "Dockerfile").read_text()
    images |= {line.split()[1] for line in text.splitlines() if line.startswith("FROM ")}
    for image in images:
        assert re.fullmatch(r"([a-z0-9-]+/)?[a-z0-9-]+:[a-z0-9.-]*\d[a-z0-9.-]*", image), image
    assert {image for image in images if image.startswith("headrace:")} == {"headrace:0.2.0", "headrace:0.2.0-cuda"}


def test_the_collector_is_made_of_parts_that_are_there() -> None:
    text = (DEPLOY / "otel-collector.yaml").read_text()
    collector = yaml.safe_load(text)
    for pipeline in collector["service"]["pipelines"].values():
        for kind, parts in pipeline.items():
            assert set(parts) <= set(collector[kind])
    assert set(collector["service"]["extensions"]) <= set(collector["extensions"])
    needed = set(re.findall(r"\$\{env:([A-Z_]+)\}", text))
    [deployed] = [container for name, container in containers() if name == "DaemonSet collector"]
    assert {variable["name"] for variable in deployed["env"]} == needed
    assert set(COMPOSE["services"]["collector"]["environment"]) == needed
