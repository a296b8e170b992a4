"""The deployment files, as far as they can be checked without the programs that read them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_address, ip_network
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
from adapters.postgres.logins import PASSWORDS
from domain.log import OUTCOMES
from ops.cli import all_commands
from ops.roles import EVERY, ROLES
from ops.servers.embedded import HOST, nats_server
from ops.settings import PREFIX, Settings
from ops.settings import SECRETS as FOLDER
from tests.nats_cluster import free_ports, once_there

DEPLOY = Path(__file__).resolve().parents[2] / "ops" / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
KUSTOMIZATION = yaml.safe_load((DEPLOY / "kustomization.yaml").read_text())
SECRETS = set(re.findall(r"\b[A-Z]+_[A-Z_]*(?:PASSWORD|KEY|TOKEN)\b(?= |;)", (DEPLOY / "secrets.sh").read_text()))
SETTINGS = {PREFIX + name.upper() for name in Settings.model_fields} | {FOLDER}

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


@pytest.fixture(scope="module")
def secrets() -> Iterator[Path]:
    """The folder that `secrets.sh` makes."""
    with tempfile.TemporaryDirectory() as name:
        subprocess.run([DEPLOY / "secrets.sh", name], check=True)
        yield Path(name)


def password(secrets: Path, user: str) -> str:
    return (secrets / f"NATS_{user}_PASSWORD").read_text()


def configured(folder: Path, secrets: Path) -> Path:
    """The configuration of NATS as it is, but for the paths of its data and certificates."""
    text = (DEPLOY / "nats.conf").read_text().replace('"/data"', f'"{folder / "data"}"')
    for name, file in (("tls.crt", "nats.crt"), ("tls.key", "nats.key"), ("ca.crt", "ca.crt")):
        assert f'"/run/tls/{name}"' in text
        text = text.replace(f"/run/tls/{name}", str(secrets / "tls" / file))
    (folder / "nats.conf").write_text(text)
    shutil.copy(DEPLOY / "accounts.conf", folder)
    for file in ("nats-server.conf", "nats-users.conf"):
        shutil.copyfile(secrets / file, folder / file)
    return folder / "nats.conf"


def tried(configuration: Path) -> subprocess.CompletedProcess[str]:
    command = [nats_server(), "-t", "-c", str(configuration)]
    environment = {**os.environ, "SERVER_NAME": "nats-0"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_configuration_of_nats_is_valid(secrets: Path, tmp_path: Path) -> None:
    done = tried(configured(tmp_path, secrets))
    assert done.returncode == 0, done.stderr
    assert "is valid" in done.stderr + done.stdout


def test_the_configuration_of_nats_has_no_default_passwords(secrets: Path, tmp_path: Path) -> None:
    configuration = configured(tmp_path, secrets)
    for file in ("nats-server.conf", "nats-users.conf"):
        given = (secrets / file).read_text()
        for name in re.findall(r"^(\w+): ", given, re.MULTILINE):
            (tmp_path / file).write_text(re.sub(rf"^{name}: .*\n", "", given, flags=re.MULTILINE))
            done = tried(configuration)
            assert done.returncode != 0
            assert name in done.stderr
        (tmp_path / file).write_text(given)


async def test_three_servers_of_this_configuration_become_a_cluster_that_keeps_three_copies(
    tmp_path: Path, secrets: Path
) -> None:
    async def quiet(error: Exception) -> None: ...

    trust = ssl.create_default_context(cafile=secrets / "tls" / "ca.crt")
    with three_servers(tmp_path, secrets) as ports:
        urls = [f"tls://setup:{password(secrets, 'SETUP')}@{HOST}:{port}" for port in ports]
        async with await nats.connect(urls, error_cb=quiet, max_reconnect_attempts=-1, tls=trust) as nc:
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
            await assert_guests_are_served(port, secrets, trust)
        with pytest.raises((nats.errors.Error, OSError)):
            await nats.connect(f"nats://setup:wrong@{HOST}:{ports[0]}", allow_reconnect=False, error_cb=quiet)


async def assert_guests_are_served(port: int, secrets: Path, trust: ssl.SSLContext) -> None:
    """By every server, whichever leads the streams."""
    tenant = f"tls://tenant-default:{password(secrets, 'TENANT_DEFAULT')}@{HOST}:{port}"
    async with await Client.connect(tenant, ca=secrets / "tls" / "ca.crt") as client:
        id = str(uuid4())
        heard = await client.connection.subscribe(f"out.default.{id}")
        await client.connection.flush()
        acknowledged = await client.stream.publish(
            "cmd.default.s_default.app.create", b"{}", headers={"Headrace-Id": id}
        )
        assert acknowledged.stream == "COMMANDS"
        worker = f"tls://worker:{password(secrets, 'WORKER')}@{HOST}:{port}"
        async with await nats.connect(worker, tls=trust) as nc:
            await nc.jetstream().publish(f"out.default.{id}", b'{"status": "accepted"}')
        assert (await heard.next_msg(5)).data == b'{"status": "accepted"}'
        assert await client.outcome(id) == {"status": "accepted"}
    archive = f"tls://archive:{password(secrets, 'ARCHIVE')}@{HOST}:{port}"
    async with await nats.connect(archive, tls=trust) as nc:
        await find_streams(nc)
        source = RawStream(nc, OUTCOMES)
        last = await source.last()
        found = [message async for messages in source.read(last - 1, last) for message in messages]
        assert [message.subject for message in found] == [f"out.default.{id}"]


@contextmanager
def three_servers(folder: Path, secrets: Path) -> Iterator[list[int]]:
    """Their ports for clients; the configuration is as it is but for addresses and paths."""
    ports = free_ports(9)
    clients, routes, monitors = ports[:3], ports[3:6], ports[6:]
    running = []
    try:
        for number, places in enumerate(zip(clients, routes, monitors, strict=True)):
            (folder / str(number)).mkdir()
            configuration = configured(folder / str(number), secrets)
            text = configuration.read_text()
            for port, place in zip((4222, 6222, 8222), places, strict=True):
                assert f'"0.0.0.0:{port}"' in text
                text = text.replace(f"0.0.0.0:{port}", f"{HOST}:{place}")
            configuration.write_text(text + f'\nlog_file: "{folder / str(number)}.log"\n')
            known = folder / str(number) / "nats-server.conf"
            found = known.read_text()
            for peer, port in enumerate(routes):
                found = found.replace(f"nats-{peer}.nats:6222", f"{HOST}:{port}")
            known.write_text(found)
            environment = {**os.environ, "SERVER_NAME": f"nats-{number}"}
            running.append(subprocess.Popen([nats_server(), "-c", str(configuration)], env=environment))
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


def mounted(service: dict[str, Any]) -> dict[str, str]:
    """The sources of the secrets of a service, by the name of the file."""
    found = [it if isinstance(it, dict) else {"source": it, "target": it} for it in service.get("secrets", [])]
    return {it["target"]: it["source"] for it in found}


def test_compose_mounts_secrets_that_are_made_and_has_none_in_the_environment(secrets: Path) -> None:
    made = {file.name for file in secrets.iterdir()} | {f"tls/{file.name}" for file in (secrets / "tls").iterdir()}
    assert {it["file"].removeprefix("secrets/") for it in COMPOSE["secrets"].values()} <= made
    for name, service in COMPOSE["services"].items():
        assert set(mounted(service).values()) <= set(COMPOSE["secrets"]), name
        for variable, value in service.get("environment", {}).items():
            assert not re.search(r"(PASSWORD|KEY|TOKEN)$", variable), name
            assert not re.search(r"://[^/@]*:[^/@]*@", str(value)), name


def test_who_has_the_secret_key_gets_further_ones_as_well() -> None:
    for name, service in COMPOSE["services"].items():
        files = mounted(service)
        assert ("HEADRACE_SECRET_KEY" in files) == ("HEADRACE_FURTHER_SECRET_KEYS" in files), name
        assert ("HEADRACE_ARCHIVE_KEY" in files) == (name == "archive"), name


def test_compose_uses_settings_that_exist() -> None:
    for name, service in COMPOSE["services"].items():
        environment = service.get("environment", {})
        assert {it for it in environment if it.startswith(PREFIX)} <= SETTINGS, name
        assert {it for it in mounted(service) if it.startswith(PREFIX)} <= SETTINGS, name


def test_every_container_of_compose_is_contained() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["pids_limit"] > 0, name
        assert service["mem_limit"], name
        assert service.get("user", "10001:10001") != "0:0" or service["network_mode"] == "none", name
        assert not [it for it in service.get("volumes", []) if it.startswith(("/", "."))], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


def test_only_those_that_need_it_reach_beyond_the_networks_of_compose() -> None:
    outside = {name for name, network in COMPOSE["networks"].items() if not (network or {}).get("internal")}
    assert outside == {"front", "outside"}
    reached = {
        network: {name for name, it in COMPOSE["services"].items() if network in it.get("networks", [])}
        for network in COMPOSE["networks"]
    }
    assert reached["front"] == {"nats-0", "view"}
    assert reached["outside"] == {"answer", "ingest", "collector"}
    assert "view" not in reached["index"]
    assert reached["index"] == {"opensearch", "setup", "ingest", "answer"}
    assert {"commands", "embed", "archive"}.isdisjoint(reached["tables"])


# --- Kubernetes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("manifest", MANIFESTS, ids=named)
def test_a_manifest_follows_the_schema(manifest: Manifest) -> None:
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_the_kustomization_names_every_manifest_and_files_that_exist() -> None:
    assert sorted(KUSTOMIZATION["resources"]) == sorted(
        str(file.relative_to(DEPLOY)) for file in DEPLOY.glob("kubernetes/*.yaml")
    )
    for generator in KUSTOMIZATION["configMapGenerator"]:
        files = [file.rpartition("=")[2] for file in generator["files"]]
        assert all(file.startswith("secrets/") or (DEPLOY / file).is_file() for file in files)


def test_the_kustomization_makes_its_secrets_of_files_that_are_made(secrets: Path) -> None:
    for generator in KUSTOMIZATION["secretGenerator"]:
        for file in generator["files"]:
            assert (secrets / file.rpartition("=")[2].removeprefix("secrets/")).is_file(), file


def test_opensearch_comes_with_all_the_rest_and_each_that_searches_has_a_user_of_its_own() -> None:
    overlay = yaml.safe_load((DEPLOY / "opensearch" / "kustomization.yaml").read_text())
    assert overlay["resources"] == ["..", "opensearch.yaml"]
    [generator] = overlay["configMapGenerator"]
    assert all((DEPLOY / "opensearch" / file).is_file() for file in generator["files"])
    [service] = [it for it in MANIFESTS if it["kind"] == "Service" and it["metadata"]["name"] == "opensearch"]
    users = yaml.safe_load((DEPLOY / "opensearch" / "internal_users.yml").read_text())
    patched = {}
    for patch in overlay["patches"]:
        target = f"{patch['target']['kind']} {patch['target']['name']}"
        [pod] = [found for name, found in pods() if name == target]
        *variables, secret = yaml.safe_load(patch["patch"])
        assert {it["path"] for it in variables} == {"/spec/template/spec/containers/0/env/-"}
        values = {it["value"]["name"]: it["value"]["value"] for it in variables}
        assert set(values) <= SETTINGS
        for number, url in enumerate(values["HEADRACE_OPENSEARCH_URL"].split(",")):
            assert url == f"https://opensearch-{number}.opensearch:{service['spec']['ports'][0]['port']}"
        found = re.fullmatch(r"/spec/template/spec/volumes/(\d)/secret/items/-", secret["path"])
        assert found is not None
        assert pod["volumes"][int(found[1])]["name"] == "secrets"
        assert secret["value"]["path"] == "HEADRACE_OPENSEARCH_PASSWORD"
        user = values["HEADRACE_OPENSEARCH_USER"]
        assert users[user]["hash"] == f"${{envbc.{secret['value']['key']}}}"
        patched[target] = user
    roles = {
        "Deployment ingest": "headrace_index",
        "Job setup": "headrace_index",
        "Deployment answer": "headrace_search",
    }
    assert patched == roles


def test_opensearch_is_encrypted_and_has_no_administrator() -> None:
    folder = DEPLOY / "opensearch"
    settings = yaml.safe_load((folder / "opensearch.yml").read_text())
    assert settings["plugins.security.ssl.http.enabled"] is True
    users, roles, mapping = (
        {name for name in yaml.safe_load((folder / file).read_text()) if name != "_meta"}
        for file in ("internal_users.yml", "roles.yml", "roles_mapping.yml")
    )
    assert users == roles == mapping
    assert not [file for file in (folder.rglob("*")) if "DISABLE_SECURITY" in file.read_text()]
    granted = yaml.safe_load((folder / "roles.yml").read_text())
    assert "*" not in {it for name in roles for it in granted[name]["cluster_permissions"]}


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


def test_secrets_and_config_maps_that_pods_mount_exist() -> None:
    overlay = yaml.safe_load((DEPLOY / "opensearch" / "kustomization.yaml").read_text())
    generators = [*KUSTOMIZATION["configMapGenerator"], *overlay["configMapGenerator"]]
    config_maps = {it["name"]: {file.partition("=")[0] for file in it["files"]} for it in generators}
    secrets = {
        it["name"]: {Path(file.partition("=")[0]).name for file in it["files"]}
        for it in KUSTOMIZATION["secretGenerator"]
    }
    claims = {it["metadata"]["name"] for it in MANIFESTS if it["kind"] == "PersistentVolumeClaim"}
    for name, pod in pods():
        for volume in pod["volumes"]:
            assert volume.get("persistentVolumeClaim", {"claimName": None})["claimName"] in {None, *claims}, name
            for source in (volume, *volume.get("projected", {}).get("sources", [])):
                if "configMap" in source:
                    keys = {it["key"] for it in source["configMap"].get("items", [])}
                    assert keys <= config_maps[source["configMap"]["name"]], name
                if "secret" in source:
                    secret = source["secret"]
                    keys = {it["key"] for it in secret.get("items", [])}
                    assert keys <= secrets[secret.get("secretName") or secret["name"]], name


def test_secrets_are_files_and_each_pod_has_only_its_own() -> None:
    passwords = {}
    for name, pod in pods():
        for container in pod["containers"]:
            assert not [it for it in container.get("env", []) if "secretKeyRef" in it.get("valueFrom", {})], name
            assert "envFrom" not in container, name
            values = [str(it.get("value", "")) for it in container.get("env", [])]
            assert not [value for value in values if re.search(r"://[^/@]*:[^/@]*@", value)], name
        of_all = [it["secret"] for it in pod["volumes"] if it.get("secret", {}).get("secretName") == "headrace"]
        assert all("items" in secret for secret in of_all), f"{name} mounts all secrets"
        passwords[name.partition(" ")[2]] = {item["key"] for secret in of_all for item in secret["items"]}
    keys, token = {"HEADRACE_SECRET_KEY", "HEADRACE_FURTHER_SECRET_KEYS"}, "HEADRACE_VIEW_TOKEN"
    assert {name: found for name, found in passwords.items() if found} == {
        "commands": {"NATS_WORKER_PASSWORD", *keys},
        "project": {"NATS_WORKER_PASSWORD", "POSTGRES_OWNER_PASSWORD", *keys},
        "ingest": {"NATS_WORKER_PASSWORD", "POSTGRES_INDEX_PASSWORD", *keys},
        "answer": {"NATS_WORKER_PASSWORD", "POSTGRES_INDEX_PASSWORD", *keys},
        "embed": {"NATS_WORKER_PASSWORD"},
        "view": {"NATS_VIEW_PASSWORD", "POSTGRES_VIEW_PASSWORD", *keys, token},
        "export": {"NATS_EXPORT_PASSWORD", "POSTGRES_EXPORT_PASSWORD"},
        "archive": {"NATS_ARCHIVE_PASSWORD", "HEADRACE_ARCHIVE_KEY"},
        "setup": {"NATS_SETUP_PASSWORD", "POSTGRES_OWNER_PASSWORD"},
        "postgres": {"POSTGRES_PASSWORD", *PASSWORDS.values()},
    }
    for name, found in passwords.items():
        if name in COMPOSE["services"]:
            made = set(mounted(COMPOSE["services"][name]).values())
            assert {it for it in made if it in SECRETS | keys and not it.startswith("OPENSEARCH")} == found, name


def test_every_pod_is_contained() -> None:
    for name, pod in pods():
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not [volume for volume in pod["volumes"] if "hostPath" in volume], name
        assert {"hostNetwork", "hostPID", "hostIPC", "initContainers"}.isdisjoint(pod), name
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["limits"]["memory"], name


def selected(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    fit = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return fit and all(labels.get(it["key"]) in it["values"] for it in selector.get("matchExpressions", []))


def policies(name: str, kind: str) -> list[Manifest]:
    """The network policies that restrict a pod in this direction, Ingress or Egress."""
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "headrace"}
    found = [it["spec"] for it in MANIFESTS if it["kind"] == "NetworkPolicy"]
    return [it for it in found if kind in it["policyTypes"] and selected(it["podSelector"], labels)]


def reaches(name: str) -> set[str]:
    """Names of our pods, blocks of addresses and namespaces that a pod may connect to."""
    names = {pod.partition(" ")[2] for pod, _ in pods()}
    found = set()
    for peer in (peer for it in policies(name, "Egress") for rule in it.get("egress", []) for peer in rule["to"]):
        if "ipBlock" in peer:
            found.add(peer["ipBlock"]["cidr"])
        elif "namespaceSelector" in peer:
            found.add(peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"])
        else:
            found |= {to for to in names if selected(peer["podSelector"], {"app.kubernetes.io/name": to})}
    return found


def test_every_pod_is_closed_in_both_directions_but_for_what_it_needs() -> None:
    bus = {"kube-system", "nats"}
    tables, index = bus | {"postgres"}, bus | {"postgres", "opensearch"}
    expected = {
        **dict.fromkeys(("commands", "embed", "archive", "nats"), bus),
        **dict.fromkeys(("project", "view"), tables),
        "setup": index,
        **dict.fromkeys(("answer", "ingest"), index | {"0.0.0.0/0"}),
        "export": tables | {"collector"},
        "collector": {"kube-system", "nats", "observability"},
        "postgres": {"kube-system"},
        "opensearch": {"kube-system", "opensearch"},
    }
    assert {name.partition(" ")[2]: reaches(name.partition(" ")[2]) for name, _ in pods()} == expected
    assert all(policies(name, "Ingress") for name in expected)


def test_what_leaves_the_cluster_reaches_no_private_address() -> None:
    blocks = [
        peer["ipBlock"]
        for it in MANIFESTS
        if it["kind"] == "NetworkPolicy"
        for rule in it["spec"].get("egress", [])
        for peer in rule["to"]
        if "ipBlock" in peer
    ]
    for block in blocks:
        closed = [ip_network(it) for it in block["except"]]
        for address in ("10.1.2.3", "172.20.0.1", "192.168.1.1", "169.254.169.254", "127.0.0.1", "100.64.0.1"):
            assert any(ip_address(address) in network for network in closed), address


def test_connections_come_from_this_namespace_and_the_ingress_alone() -> None:
    for it in (it for it in MANIFESTS if it["kind"] == "NetworkPolicy"):
        for rule in it["spec"].get("ingress", []):
            for peer in rule["from"]:
                named_space = peer.get("namespaceSelector", {}).get("matchLabels")
                assert named_space in (None, {"kubernetes.io/metadata.name": "ingress-nginx"}), named(it)
    [ingress] = [it for it in MANIFESTS if it["kind"] == "Ingress"]
    hosts = {rule["host"] for rule in ingress["spec"]["rules"]}
    assert {host for tls in ingress["spec"]["tls"] for host in tls["hosts"]} == hosts
    [view] = [container for name, container in containers() if name == "Deployment view"]
    assert {it["value"] for it in view["env"] if it["name"] == "HEADRACE_VIEW_HOSTS"} == hosts


def test_every_address_of_a_server_is_encrypted_and_verified() -> None:
    environments = [({it["name"]: it.get("value", "") for it in c.get("env", [])}, n) for n, c in containers()]
    environments += [(it.get("environment", {}), name) for name, it in COMPOSE["services"].items()]
    for environment, name in environments:
        for url in environment.get("HEADRACE_NATS_URL", "").split(","):
            assert re.fullmatch(r"(tls://\w+@nats-\d\.nats:4222)?", url), name
        postgres = environment.get("HEADRACE_POSTGRES_URL", "?sslmode=verify-full&sslrootcert=/")
        assert "?sslmode=verify-full&sslrootcert=/" in postgres, name
        for setting in ("HEADRACE_OPENSEARCH_URL", "HEADRACE_OTLP_ENDPOINT", "OTLP_ENDPOINT"):
            assert not str(environment.get(setting, "")).startswith("http:"), name
        assert "HEADRACE_NATS_URL" not in environment or "HEADRACE_NATS_CA" in environment


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
        [pod] = [found for of, found in pods() if of == name]
        files = {it["path"] for volume in pod["volumes"] for it in volume.get("secret", {}).get("items", [])}
        assert {file for file in files if file.startswith(PREFIX)} <= SETTINGS, name
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
            case "NetworkPolicy":
                peers = [(rule["ports"], peer) for rule in spec.get("egress", []) for peer in rule["to"]]
                for wanted, selector in ((some, it["podSelector"]) for some, it in peers if [*it] == ["podSelector"]):
                    found = [name for name in names if selected(selector, {"app.kubernetes.io/name": name})]
                    assert found
                    assert all({port["port"] for port in wanted} <= ports[name] for name in found)


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
    group: Any = typer.main.get_command(all_commands())
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
    texts = [(DEPLOY / file).read_text() for file in ("otel-collector.yaml", "otel-nats.yaml")]
    collector, further = (yaml.safe_load(text) for text in texts)
    pipelines = collector["service"]["pipelines"] | further["service"]["pipelines"]
    collector["receivers"] |= further["receivers"]
    for pipeline in pipelines.values():
        for kind, parts in pipeline.items():
            assert set(parts) <= set(collector[kind])
    assert set(collector["service"]["extensions"]) <= set(collector["extensions"])
    assert set(collector["receivers"]["otlp"]["protocols"]) == {"http"}
    assert "tls" in collector["receivers"]["otlp"]["protocols"]["http"]
    needed = set(re.findall(r"\$\{env:([A-Z_]+)\}", "".join(texts)))
    [deployed] = [container for name, container in containers() if name == "Deployment collector"]
    assert {variable["name"] for variable in deployed["env"]} == needed
    assert set(COMPOSE["services"]["collector"]["environment"]) == needed
