"""Commands of toolsets, and of tool calls that wait for a person."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, Field, JsonValue, model_validator

from domain.access.tenant import HOUSE
from domain.aggregate import Rejection
from domain.tools.plugin import Plugin
from domain.tools.tool import BUILTIN
from domain.tools.tool_call import ToolCall
from domain.tools.toolset import Kind, Secret, Toolset, ToolsetSettings, place
from domain.tools.user_secrets import UserSecrets
from handlers.commands.dify_form import form_fault
from handlers.commands.fields import (
    AppId,
    Command,
    DatasetId,
    Description,
    Handle,
    Id,
    Name,
    Part,
    Ref,
    Sha256,
    at_most,
)
from handlers.commands.models import HINT, SHORTEST, Key
from handlers.commands.plugin_package import PluginName
from handlers.commands.preparation import Change, MakeOrChange, Preparation
from handlers.user_secrets import seal

MOST_SCHEMA, MOST_FILE = 8 * 2**20, 64 * 2**20
"""Maximum bytes of an OpenAPI document, and of a SQLite file."""

Url = Annotated[str, Field(pattern=r"^https?://[^\s@?#\\]+(\?[^\s#\\]*)?$", max_length=2000)]

HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$")]


class AuthFields(Part):
    """The way that a server asks for the secret of a toolset."""

    type: Literal["none", "header", "query", "cookie", "basic", "bearer", "client_credentials", "oauth"] = Field(
        "none",
        description="The secret is sent in a `header`, a `query` parameter or a `cookie` of that `name`; as `basic` "
        "(user:password), as `bearer`; or changed for a token at `token_url` (`client_credentials`). With `oauth`, it "
        "is the login of a person to an MCP server",
    )
    name: HeaderName = Field("Authorization", description="Name of the header, query parameter or cookie")
    prefix: Annotated[str, Field(max_length=64)] = Field("", description="Text before the secret in a header")
    token_url: Url | None = Field(None, description="Of `client_credentials`: address that gives tokens")
    client_id: Annotated[str, Field(max_length=500)] = Field("", description="Of `client_credentials`: client")
    scope: Annotated[str, Field(max_length=2000)] = Field("", description="Of `client_credentials`: scopes")
    user_header: HeaderName | None = Field(
        None, description="Header that carries the id of the end user, signed; null for none"
    )

    per_user: bool = Field(
        False,
        description="True if each end user has a secret of their own, see `user_secret.set`; then that of the "
        "toolset is for its list of tools",
    )

    @model_validator(mode="after")
    def _complete(self) -> AuthFields:
        if self.per_user and (self.type == "none" or self.user_header):
            raise ValueError("per_user needs a type that sends a secret, and no user_header, which one secret signs")
        if (self.type == "client_credentials") != bool(self.token_url):
            raise ValueError("token_url is what auth of type 'client_credentials' needs, and no other has")
        return self


class OpenApiFields(Part):
    """Operations of an API that an OpenAPI document describes."""

    url: Url | None = Field(None, description="Address of the document; null where `text` or `digest` has it")
    text: Annotated[str, at_most(kib=256)] | None = Field(None, description="The document, as JSON or YAML")
    digest: Sha256 | None = Field(None, description="SHA-256 in hex of the blob with the document")
    server: Url | None = Field(None, description="Address of the API; null for the first server of the document")
    operations: Annotated[list[Annotated[str, Field(max_length=255)]], Field(max_length=128)] | None = Field(
        None, description="Operations to offer, by `operationId` or `METHOD /path`; null for all"
    )
    auth: AuthFields = Field(AuthFields(), description="The way that the server asks for the secret")

    @model_validator(mode="after")
    def _has_a_document(self) -> OpenApiFields:
        if len([each for each in (self.url, self.text, self.digest) if each is not None]) != 1:
            raise ValueError("url, text or digest must say where the document is, and only one of them")
        if self.auth.type == "oauth":
            raise ValueError("auth of type 'oauth' is for MCP servers alone")
        return self


class McpFields(Part):
    """A server that speaks the Model Context Protocol."""

    url: Url | None = Field(None, description="Address of a server with Streamable HTTP; null for one of the operator")
    server: Handle | None = Field(
        None, description="Server that the operator of the installation has configured, by its name; null with a `url`"
    )
    auth: AuthFields = Field(AuthFields(), description="The way that the server asks for the secret")

    @model_validator(mode="after")
    def _one_place(self) -> McpFields:
        if (self.url is None) == (self.server is None):
            raise ValueError("url or server must say where the tools are, and only one of them")
        if self.server and self.auth.per_user:
            raise ValueError("auth.per_user is for a server with a url: a program has one secret")
        return self


class AppToolFields(Part):
    """An app that answers as a tool."""

    app: AppId


class DatasetToolFields(Part):
    """A knowledge base that is searched as a tool."""

    dataset: DatasetId
    top_k: Annotated[int, Field(ge=1, le=50)] = Field(5, description="Maximum number of passages of a search")


class SqlFields(Part):
    """A database that is queried; it is only read."""

    connection: Handle | None = Field(
        None, description="Database that the operator of the installation has named for this tenant; null for a file"
    )
    digest: Sha256 | None = Field(None, description="SHA-256 in hex of the blob with a SQLite file, at most 64 MiB")

    @model_validator(mode="after")
    def _one_place(self) -> SqlFields:
        if (self.connection is None) == (self.digest is None):
            raise ValueError("connection or digest must say which database it is, and only one of them")
        return self


class PluginToolFields(Part):
    """Tools of a plugin of Dify, which the tenant has enabled."""

    name: PluginName
    provider: Annotated[str, Field(max_length=128)] = Field(
        "", description="Provider of tools in the package; empty for the only one"
    )
    parameters: Annotated[
        dict[Annotated[str, Field(max_length=128)], dict[Annotated[str, Field(max_length=128)], JsonValue]],
        at_most(kib=64),
    ] = Field({}, description="Parameters that a person sets and not a model, by tool and name")


def _not_builtin(name: str) -> str:
    if name == BUILTIN:
        raise ValueError("Must not be 'builtin', which is the toolset that is always there")
    return name


class RegisterToolset(Command):
    """Register a toolset, or change where its tools are from; its secret is encrypted at rest.

    Its tools are listed afterwards, as by `toolset.refresh`.
    """

    name: Annotated[Handle, AfterValidator(_not_builtin)] = Field(
        description="Name that apps use; the same name again changes the toolset"
    )
    kind: Kind = Field(description="Kind of toolset: the field of this name has its settings")
    description: Description = ""
    openapi: OpenApiFields | None = Field(None, description="Of kind `openapi`: the API")
    mcp: McpFields | None = Field(None, description="Of kind `mcp`: the server")
    app: AppToolFields | None = Field(None, description="Of kind `app`: the app")
    dataset: DatasetToolFields | None = Field(None, description="Of kind `dataset`: the knowledge base")
    sql: SqlFields | None = Field(None, description="Of kind `sql`: the database")
    plugin: PluginToolFields | None = Field(None, description="Of kind `plugin`: the plugin")
    secret: Key | None = Field(
        None,
        description="Secret that its server asks for, empty for none; null keeps the one that it has. Of kind "
        "`plugin`: the fields of the form of its credentials, as a JSON object",
    )
    timeout_s: Annotated[float, Field(gt=0, le=600)] = Field(30.0, description="Time limit of a call, in seconds")

    @model_validator(mode="after")
    def _of_its_kind(self) -> RegisterToolset:
        for kind in ("openapi", "mcp", "app", "dataset", "sql", "plugin"):
            if (getattr(self, kind) is not None) != (self.kind == kind):
                raise ValueError(f"{kind} is what a toolset of kind '{kind}' needs, and no other has")
        return self

    def settings(self) -> dict[str, Any]:
        return cast("dict[str, Any]", getattr(self, self.kind).model_dump())


ToolsetName = Annotated[Handle, Ref(Toolset), Field(description="Toolset, by its name")]

CallId = Annotated[Id, Ref(ToolCall), Field(description="Tool call")]


class RefreshToolset(Command):
    """List the tools of a toolset again. The command is accepted at once; the result is `toolset.refreshed`."""

    toolset: ToolsetName


class RemoveToolset(Command):
    """Remove a toolset and its secret; agents go on without its tools."""

    toolset: ToolsetName


class SetUserSecret(Command):
    """Set the secret of an end user for a toolset with `auth.per_user`; the calls of the user's turns send it.

    It is encrypted with the key of the person, and erased with the person.
    """

    toolset: ToolsetName
    user: Name = Field(description="End user, as the app's operator names them")
    secret: Annotated[Key, Field(min_length=1)] = Field(description="Secret that the server asks this user for")


class RemoveUserSecret(Command):
    """Remove the secret of an end user for a toolset."""

    toolset: ToolsetName
    user: Name = Field(description="End user, as the app's operator names them")


class ReleaseCall(Command):
    """Release a tool call that waits for a person: it is made. Where its server asks something, answer that."""

    tool_call: CallId
    answer: Annotated[dict[Annotated[str, Field(max_length=255)], JsonValue], at_most(kib=64)] | None = Field(
        None, description="Fields of the form, where the server of the tool asks something; null elsewhere"
    )


class RefuseCall(Command):
    """Refuse a tool call that waits for a person; the model reads why. Where its server asks something, decline it."""

    tool_call: CallId
    reason: Annotated[str, Field(max_length=1000)] = Field(
        "", description="Reason, which the model reads; empty where the server asks something"
    )
    cancel: bool = Field(False, description="True to tell the server that the user neither answers nor declines")


async def register(command: RegisterToolset, given: Preparation) -> MakeOrChange[Toolset]:
    settings = command.settings()
    if command.openapi and command.openapi.digest:
        await _keep(command.openapi.digest, "openapi.digest", MOST_SCHEMA, given)
    if command.sql and command.sql.digest:
        await _keep(command.sql.digest, "sql.digest", MOST_FILE, given)
    if command.plugin:
        await _of_form(command.plugin, command.secret, given)
    new = None
    if command.secret:
        hint = command.secret[-HINT:] if len(command.secret) >= SHORTEST and not command.plugin else ""
        new = Secret(sealed=given.ports.vault.seal(given.tenant, command.secret), hint=hint)

    def decide(toolset: Toolset | None, id: str, at: datetime) -> Toolset:
        same = toolset is not None and toolset.place == place(command.kind, settings)
        kept = toolset.secret if toolset and same and command.secret is None else None
        now = ToolsetSettings(
            kind=command.kind,
            description=command.description,
            settings=settings,
            secret=new or kept,
            timeout_s=command.timeout_s,
        )
        if toolset is None:
            toolset = Toolset.begin(Toolset.Registered, id, at, **now)
        else:
            toolset.change(at, **now)
        toolset.request_refresh(at, refresh=given.id)
        return toolset

    return decide


async def _of_form(fields: PluginToolFields, secret: str | None, given: Preparation) -> None:
    """Check the provider, the parameters and the credentials by what the package declares. Raises: Rejection."""
    plugin = await given.ports.repository.get(Plugin, HOUSE, fields.name)
    if plugin is None or plugin.deleted or "dify" not in plugin.manifest:
        raise Rejection("not_found", f"No plugin {fields.name} with tools is installed.", "plugin.name")
    found = plugin.manifest["dify"]["tools"]
    named = [each for each in found if each["name"] == fields.provider or (not fields.provider and len(found) == 1)]
    if not named:
        names = ", ".join(each["name"] for each in found) or "none"
        raise Rejection("not_found", f"The plugin has no such tools; it has {names}.", "plugin.provider")
    tools = {tool["name"]: {each["name"] for each in tool["parameters"]} for tool in named[0]["tools"]}
    for tool, values in fields.parameters.items():
        if unknown := sorted(values.keys() - tools.get(tool, set())):
            raise Rejection("invalid", f"The tool {tool} has no parameter {unknown[0]}.", "plugin.parameters")
    if secret and (fault := form_fault(named[0]["credentials"], secret)):
        raise Rejection("invalid", fault, "secret")


async def _keep(digest: str, field: str, most: int, given: Preparation) -> None:
    """Keep a blob that the toolset needs. Raises: Rejection `not_found`, `too_large`."""
    size = await given.ports.blobs.keep(given.tenant, digest)
    if size is None:
        sentence = f"There is no blob {given.tenant}/{digest}; put the file into the object store first."
        raise Rejection("not_found", sentence, field)
    if size > most:
        raise Rejection("too_large", f"The file must not exceed {most // 2**20} MiB.", field)


async def refresh(command: RefreshToolset, given: Preparation) -> Change[Toolset]:
    return lambda toolset, at: toolset.request_refresh(at, refresh=given.id)


async def set_user_secret(command: SetUserSecret, given: Preparation) -> MakeOrChange[UserSecrets]:
    toolset = given.the(Toolset, "toolset")
    if not toolset.settings.get("auth", {}).get("per_user"):
        sentence = f"The toolset {toolset.id} has one secret for all: register it with auth.per_user."
        raise Rejection("invalid", sentence, "toolset")
    assert given.person
    sealed = await seal(given.ports.people, given.tenant, given.person, command.secret)

    def decide(known: UserSecrets | None, id: str, at: datetime) -> UserSecrets:
        known = known or UserSecrets.begin(UserSecrets.Begun, id, at)
        known.set(at, toolset=toolset.id, sealed=sealed, place=toolset.place)
        return known

    return decide


async def remove_user_secret(command: RemoveUserSecret, given: Preparation) -> MakeOrChange[UserSecrets]:
    def decide(known: UserSecrets | None, id: str, at: datetime) -> UserSecrets:
        if known is None:
            raise Rejection("not_found", "The user has no secret for any toolset.", "toolset")
        known.remove(at, toolset=command.toolset)
        return known

    return decide


def release(call: ToolCall, at: datetime, command: ReleaseCall) -> None:
    if command.answer is not None:
        call.answer(at, action="accept", content=command.answer)
    elif call.question:
        raise Rejection("invalid", f"The server asks: {call.question['message']}", "answer")
    else:
        call.release(at)


def refuse(call: ToolCall, at: datetime, command: RefuseCall) -> None:
    if command.cancel or call.question:
        if command.reason:
            raise Rejection("invalid", "A question is declined without a reason: leave it empty.", "reason")
        call.answer(at, action="cancel" if command.cancel else "decline", content={})
    else:
        call.refuse(at, code="refused", reason=command.reason or "A person refused the call.")
