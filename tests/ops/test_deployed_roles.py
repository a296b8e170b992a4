"""The roles with the logins, secrets and settings of the deployment, as processes on real servers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ops.servers.embedded import HOST, EmbeddedPostgres, nats_server, postgres_binary
from tests.nats_cluster import free_ports
from tests.ops.test_deploy import DEPLOY, containers, pods

ROOT = DEPLOY.parents[1]
ROLES = ("commands", "project", "ingest", "answer", "embed", "view", "archive")


class Site:
    """One encrypted NATS server with the deployed accounts, and a PostgreSQL with the deployed logins."""

    def __init__(self, folder: Path, nats_port: int, postgres: EmbeddedPostgres) -> None:
        self.folder = folder
        self.secrets = folder / "secrets"
        self.nats_port = nats_port
        self.postgres = postgres

    def environment(self, pod: str, home: str = "home") -> dict[str, str]:
        """The settings and secrets of a pod, with the addresses of these servers."""
        [container] = [found for name, found in containers() if name == pod]
        [spec] = [found for name, found in pods() if name == pod]
        mounted = self.folder / pod / "secrets"
        mounted.mkdir(parents=True, exist_ok=True)
        [secret] = [volume["secret"] for volume in spec["volumes"] if volume["name"] == "secrets"]
        for item in secret["items"]:
            shutil.copyfile(self.secrets / item["key"], mounted / item["path"])
        values = {it["name"]: it["value"] for it in container["env"]}
        values |= {"HEADRACE_SECRETS": str(mounted), "HEADRACE_HOME": str(self.folder / pod / home)}
        values |= {"HEADRACE_NATS_CA": str(self.secrets / "tls" / "ca.crt"), "HEADRACE_REPLICAS": "1"}
        user = values["HEADRACE_NATS_URL"].partition("@")[0]
        values["HEADRACE_NATS_URL"] = f"{user}@localhost:{self.nats_port}"
        if url := values.get("HEADRACE_POSTGRES_URL"):  # the embedded server is built without TLS
            user = url.partition("@")[0]
            values["HEADRACE_POSTGRES_URL"] = f"{user}@{HOST}:{self.postgres.port}/{self.postgres.database}"
        if "HEADRACE_VIEW_ADDRESS" in values:
            values["HEADRACE_VIEW_ADDRESS"] = f"{HOST}:0"
        if "HEADRACE_ARCHIVE_URL" in values:
            values["HEADRACE_ARCHIVE_URL"] = str(self.folder / "archive")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        return inherited | values

    def headrace(self, environment: dict[str, str], *arguments: str, within: float = 200) -> list[dict[str, Any]]:
        """Run a command to its end; return what it prints as JSON."""
        command = [sys.executable, "-m", "ops.cli", *arguments, "--json"]
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=within, check=False
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
        return [json.loads(line) for line in done.stdout.splitlines()]

    def until_ready(self, environment: dict[str, str], role: str, within: float = 200) -> None:
        deadline = time.monotonic() + within
        command = [sys.executable, "-m", "ops.cli", "ping", "--role", role]
        while subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline, (self.folder / f"{role}.log").read_text()[-2000:]


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([DEPLOY / "secrets.sh", folder / "secrets"], check=True)  # noqa: ASYNC221
        secrets = folder / "secrets"
        [port] = free_ports(1)
        tls = {"cert_file": str(secrets / "tls" / "nats.crt"), "key_file": str(secrets / "tls" / "nats.key")}
        settings = {"listen": f"{HOST}:{port}", "tls": tls, "jetstream": {"store_dir": str(folder / "nats")}}
        settings |= {"max_payload": 8 * 2**20}
        (folder / "nats.conf").write_text(f"{json.dumps(settings)[1:-1]}\ninclude accounts.conf\n")
        shutil.copy(DEPLOY / "accounts.conf", folder)
        shutil.copyfile(secrets / "nats-users.conf", folder / "nats-users.conf")
        nats = subprocess.Popen([nats_server(), "-c", folder / "nats.conf"], stderr=subprocess.DEVNULL)  # noqa: ASYNC220
        try:
            async with EmbeddedPostgres(folder / "postgres") as postgres:
                script = [str(postgres_binary("psql")), postgres.url, "-qf", str(DEPLOY / "postgres-roles.sql")]
                subprocess.run(script, env={**os.environ, "SECRETS": str(secrets)}, check=True)  # noqa: ASYNC221
                yield Site(folder, port, postgres)
        finally:
            nats.kill()
            nats.wait()


@pytest.mark.long
def test_a_question_is_answered_by_roles_that_have_no_more_than_they_are_given(site: Site) -> None:
    made = [it["ready"] for it in site.headrace(site.environment("Job setup"), "setup", "--wait", "60")]
    assert {"tables", "index"} <= set(made)
    workers = []
    try:
        for role in ROLES:
            with open(site.folder / f"{role}.log", "wb") as log:
                command = [sys.executable, "-m", "ops.cli", "worker", "--role", role]
                environment = site.environment(f"Deployment {role}")
                workers.append(subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log))
        operator = site.environment("Deployment project", "of the operator")
        for role in ROLES:
            site.until_ready(operator, role)
        [created] = site.headrace(operator, "send", "dataset.create", "name=Handbook")
        dataset = created["ids"]["dataset"]
        [document] = [*(ROOT / "examples" / "handbook").glob("emergency-plan.pdf")]
        site.headrace(operator, "upload", str(document), "--dataset", dataset, "--wait")
        [outcome] = site.headrace(operator, "send", "app.create", "name=Porter")
        app = outcome["ids"]["app"]
        site.headrace(operator, "send", "app.configure", f"app={app}", f'datasets:=["{dataset}"]')
        question = "How many minutes does the flood wave need to reach Lower Millbrook if the weir breaks?"
        answer = site.headrace(operator, "ask", app, question)
        assert "22 minutes" in json.dumps(answer)
        for worker in workers:
            assert worker.poll() is None
        passwords = [text for file in site.secrets.iterdir() if file.name.isupper() and (text := file.read_text())]
        given = [psutil.Process(worker.pid).environ() for worker in workers]
        assert not [password for password in passwords if any(password in str(variables) for variables in given)]
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait(60)
