"""Generates the reference parts of docs/ from the code: `python -m ops.docs`.

A part is between `<!-- generated: NAME -->` and `<!-- end -->`; the rest of a page is not generated.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text
from sqlalchemy.dialects import postgresql
from typer.main import get_command

from adapters import pinned
from adapters.jetstream import accounts
from domain.access.actor import ANON
from domain.access.permissions import OF_SERVICES, PERMISSIONS, ROLES
from domain.access.tenant import HOUSE
from handlers import ports
from handlers.commands.fields import references
from handlers.routes import ROUTES, Route
from handlers.work.work import WORKS
from ops.asyncapi import document, event_model, events, write_schemas
from ops.cli import all_commands
from ops.settings import CONFIG, PREFIX, SECRETS, Settings
from projections.catalog import READ_MODELS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

PART = re.compile(r"(<!-- generated: (\w+) -->\n)(?:(?!<!-- (?:generated|end)).)*+(<!-- end -->)", re.DOTALL)

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


BELOW = "as below"


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a JSON object: its path (`variables[].name`), type, rules, and default as JSON, None when required."""

    path: str
    type: str
    rules: str
    default: str | None
    description: str


def fields(schema: dict[str, Any]) -> Iterator[Field]:
    """The fields of a JSON Schema, those of inner objects after the field that holds them."""
    yield from _fields(schema, schema.get("$defs", {}), "")


def _fields(schema: dict[str, Any], defs: dict[str, Any], prefix: str) -> Iterator[Field]:
    for name, given in schema["properties"].items():
        path = f"{prefix}{name}"
        inner, nullable = _without_null(given)
        inner = _resolved(inner, defs)
        item = _resolved(inner.get("items", {}), defs)
        default = json.dumps(given["default"], ensure_ascii=False) if "default" in given else None
        if "properties" in inner and default is not None:
            default = BELOW
        if name not in schema.get("required", ()) and default is None:
            default = "null"
        kind = f"list of {_kind(item)}" if inner.get("type") == "array" else _kind(inner)
        description = given.get("description") or inner.get("description", "")
        description += "." * (description[-1:] not in ("", ".", "…"))
        yield Field(path, kind + " or null" * nullable, _rules(inner), default, description)
        if "properties" in inner:
            yield from _fields(inner, defs, f"{path}.")
        elif "properties" in item:
            yield from _fields(item, defs, f"{path}[].")


def _without_null(schema: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) == 1:
        return options[0], True
    return schema, False


def _resolved(schema: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    return defs[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def _kind(schema: dict[str, Any]) -> str:
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("format") == "uuid":
        return "UUID"
    if schema.get("format") == "date-time":
        return "time"
    return str(schema.get("type", "any"))


def _rules(schema: dict[str, Any]) -> str:
    """The rules of a value, in words."""
    found = []
    for least, most, unit in (
        ("minLength", "maxLength", " characters"),
        ("minimum", "maximum", ""),
        ("minItems", "maxItems", " items"),
        ("minProperties", "maxProperties", " entries"),
    ):
        low, high = schema.get(least), schema.get(most)
        if low is not None and high is not None:
            found.append(f"{low:,} to {high:,}{unit}")
        elif high is not None:
            found.append(f"at most {high:,}{unit}")
        elif low is not None:
            found.append(f"at least {low:,}{unit}")
    if "pattern" in schema:
        found.append(f"matches `{schema['pattern']}`")
    return ", ".join(found)


def table(*columns: str, rows: Iterator[tuple[str, ...]]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


# --- the parts -----------------------------------------------------------------------------------------------


def commands() -> str:
    """Every command: its fields, their rules, and an example with its outcome."""
    examples: dict[str, dict[str, Any]] = {}
    for example in json.loads((DOCS / "examples.json").read_text("utf-8")):
        examples.setdefault(example["name"], example)
    return "\n\n".join(_command(name, route, examples[name]) for name, route in ROUTES.items())


def _command(name: str, route: Route, example: dict[str, Any]) -> str:
    named = {path.removesuffix("[]"): kind.TOPIC for path, kind in references(route.command)}

    def rows() -> Iterator[tuple[str, ...]]:
        for field in fields(route.command.model_json_schema()):
            rules = field.rules
            if noun := named.get(field.path):
                rules = f"{rules}, " * bool(rules) + f"{noun} must exist"
            default = {None: "**required**", BELOW: BELOW}.get(field.default, f"`{field.default}`")
            yield f"`{field.path}`", field.type, default, rules, field.description

    tenant = HOUSE if route.house else "default"
    login = accounts.actor_of(accounts.login("default"))
    sender = login if name in accounts.COMMANDS_OF_A_LOGIN else ANON
    return f"""### {name}

{inspect.getdoc(route.command)} Permission: `{route.permission}`.

{table("Field", "Type", "Default", "Rules", "Meaning", rows=rows())}

```
cmd.{tenant}.{sender}.{name}   Headrace-Id: {example["id"]}
{_short(example["payload"])}
```

Outcome: `{json.dumps(example["outcome"], ensure_ascii=False)}`. Schema: [{name}.json](schemas/{name}.json)."""


def _short(payload: dict[str, Any]) -> str:
    line = json.dumps(payload, ensure_ascii=False)
    return line if len(line) < 120 else json.dumps(payload, ensure_ascii=False, indent=2)


def permissions() -> str:
    """Every permission, and the commands that need it."""
    needed = defaultdict(list)
    for name, route in ROUTES.items():
        needed[route.permission].append(f"`{name}`")
    rows = ((f"`{name}`", f"{meaning}.", ", ".join(needed[name])) for name, meaning in PERMISSIONS.items())
    return table("Permission", "Meaning", "Commands", rows=rows)


def event_reference() -> str:
    """Every event: when, where, and with which fields."""
    parts = []
    for name, (noun, event) in events().items():
        model = event_model(event)
        state = model.model_json_schema()["$defs"][f"{model.__name__}State"]
        whole = {**state, "$defs": model.model_json_schema().get("$defs", {})}
        rows = ((f"`{field.path}`", field.type, field.description) for field in fields(whole))
        sealed = ", ".join(f"`{field}`" for field in sorted(event.PERSONAL))
        sealed = f" Sealed with the key of a person: {sealed}." * bool(sealed)
        parts.append(
            f"### {name}\n\n{inspect.getdoc(event)}{sealed} On `evt.<tenant>.{noun}.<id>`, schema [{name}.json]"
            f"(schemas/{name}.json).\n\n{table('Field of `state`', 'Type', 'Meaning', rows=rows)}"
        )
    return "\n\n".join(parts)


def tables() -> str:
    """Every table of schema `headrace`, with its columns."""
    parts = []
    for model in READ_MODELS:
        rows = (
            (
                f"`{column.name}`",
                column.type.compile(_DIALECT).partition(" COLLATE ")[0].lower(),
                "" if column.nullable else "not null",
                str(column.comment),
            )
            for column in model.table.columns
        )
        indexed = [", ".join(f"`{column.name}`" for column in index.columns) for index in model.table.indexes]
        also = f" Also indexed: ({'), ('.join(sorted(indexed))})." if indexed else ""
        parts.append(
            f"### {model.name}\n\n{model.table.comment}\n\nPrimary key: (`tenant_id`, `{model.key}`).{also}\n\n"
            + table("Column", "Type", "", "Meaning", rows=rows)
        )
    return "\n\n".join(parts)


def settings() -> str:
    """Every setting: variable, key of `headrace.toml`, type, default."""

    def rows() -> Iterator[tuple[str, ...]]:
        properties = Settings.model_json_schema()["properties"]
        for field in fields({"properties": properties}):
            given = Settings.model_fields[field.path].default
            default = "" if given in (None, "") else f"`{given}`"
            kind = field.type.removesuffix(" or null")
            rules = f" ({field.rules})" if field.rules else ""
            yield f"`{PREFIX}{field.path.upper()}`", f"`{field.path}`", kind + rules, default, field.description
        yield f"`{CONFIG}`", "", "string", "`headrace.toml` in the home", "The file that the settings are read from."
        folder = (
            "Folder of files named like variables, such as `HEADRACE_SECRET_KEY`, each with the value of its setting."
        )
        yield f"`{SECRETS}`", "", "string", "", folder

    return table("Variable", "In the file", "Type", "Default", "Meaning", rows=rows())


def port_reference() -> str:
    """Every port: its methods with their contracts."""
    parts = []
    files = sorted(Path(ports.__path__[0]).glob("*.py"))
    for node in (node for file in files for node in ast.parse(file.read_text("utf-8")).body):
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "Protocol" for base in node.bases):
            lines = [f"### {node.name}"]
            if doc := ast.get_docstring(node):
                lines.append(doc)
            members = [_member(node.body, index) for index in range(len(node.body))]
            lines.append("```python\n" + "\n\n".join(member for member in members if member) + "\n```")
            parts.append("\n\n".join(lines))
    return "\n\n".join(parts)


def _member(body: list[ast.stmt], index: int) -> str:
    """A method or attribute of a port, with what it promises."""
    node = body[index]
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        kind = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
        result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        promise = ast.get_docstring(node)
        comment = "".join(f"\n    # {line}".rstrip() for line in promise.splitlines()) if promise else ""
        return f"{kind} {node.name}({ast.unparse(node.args)}){result}{comment}"
    if isinstance(node, ast.AnnAssign):
        following = body[index + 1] if index + 1 < len(body) else None
        value = following.value if isinstance(following, ast.Expr) else None
        promise = str(value.value) if isinstance(value, ast.Constant) else ""
        return ast.unparse(node) + "".join(f"\n    # {line}" for line in promise.splitlines())
    return ""


def works() -> str:
    """Every work: the events that begin it, its role, its concurrency and its tries."""

    def rows() -> Iterator[tuple[str, ...]]:
        for name, work in WORKS.items():
            begins = ", ".join(f"`{event.TOPIC.rpartition('.')[0]}`" for event in work.begins)
            yield f"`{name}`", begins, f"`{work.role}`", f"{work.share} / {work.slots}", str(work.tries)

    return table("Consumer", "Begins with", "Role", "At once, of one tenant / of all", "Tries", rows=rows())


def command_line() -> str:
    """Every command of `headrace`, with its arguments and options."""
    parts = []
    for name, command in leaves(get_command(all_commands())):
        rows = [_parameter(parameter) for parameter in command.params if parameter.name != "help"]
        arguments = [row[0].strip("`") for row in rows if "--" not in row[0]]
        usage = " ".join(("headrace", name, "[OPTIONS]", *arguments))
        examples = str(Text.from_markup(command.epilog)).partition(": ")[2].replace(" · ", "\n")
        options = table("Argument or option", "Default", "Meaning", rows=iter(rows))
        parts.append(f"### {name}\n\n{_plain(command.help)}\n\n```\n{usage}\n```\n\n{options}\n\n```\n{examples}\n```")
    return "\n\n".join(parts)


def leaves(group: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The commands of a group and of the groups in it, by their names as one types them."""
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from leaves(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


def _parameter(parameter: Any) -> tuple[str, str, str]:
    if parameter.param_type_name == "argument":
        name = parameter.metavar or parameter.name.upper()
        return f"`{name}`", "**required**" if parameter.required else "", _plain(parameter.help)
    default = "" if parameter.is_flag or parameter.default is None else f"`{parameter.default}`"
    return f"`{', '.join(parameter.opts)}`", "**required**" if parameter.required else default, _plain(parameter.help)


def _plain(text: str) -> str:
    return str(Text.from_markup(text)).replace("<", "&lt;")


def nats_users() -> str:
    """The users of NATS, with what they may publish and hear."""
    acme = accounts.tenant("acme", [accounts.login("acme", "services")])
    chats = [name for name, route in ROUTES.items() if route.permission == "chat"]
    guests = [*accounts.GUESTS, acme]
    users = [("`HEADRACE`", user) for user in accounts.INSIDERS]
    users += [(f"`{guest.account}`", user) for guest in guests for user in guest.members()]
    users.append(("`acme`", acme.user("API key with chat and read", "k_4711", chats)))
    users.append(("`SYS`", accounts.CALLOUT))
    rows = [
        f"| {account} | `{user.name}` | {_subjects(user.publish)} | {_subjects(user.subscribe)} |"
        for account, user in users
    ]
    return "\n".join(["| Account | User | Publishes | Subscribes |", "|---|---|---|---|", *rows])


def pins() -> str:
    """Programs, models and scripts of others, with their digests."""

    def rows() -> Iterator[tuple[str, ...]]:
        for name, pin in pinned.PINS.items():
            for on, digest in pin.digests.items():
                yield f"`{name}`", pin.version, on, f"`{digest}`"

    return table("Name", "Version", "Platform", "SHA-256", rows=rows())


def _subjects(subjects: tuple[str, ...] | None) -> str:
    """The subjects, with the first and the last for the many of a service's commands."""
    if subjects is None:
        return "everything"
    sent = [subject for subject in subjects if "*" not in subject and subject.startswith("cmd.") and subject[-1] != ">"]
    named = [f"`{subject}`" for subject in subjects if subject not in sent]
    return ", ".join([*([f"`{sent[0]}` … `{sent[-1]}`, {len(sent)} commands"] if sent else []), *named])


def roles() -> str:
    """The permissions of each role of a tenant, and those of services on the bus and API keys."""
    sets = {**{f"`{role}`": found for role, found in ROLES.items()}, "service, API key": OF_SERVICES}
    rows = ((f"`{name}`", *("✓" if name in found else "" for found in sets.values())) for name in PERMISSIONS)
    return table("Permission", *sets, rows=rows)


PARTS: dict[str, Callable[[], str]] = {
    "nats": nats_users,
    "pins": pins,
    "commands": commands,
    "permissions": permissions,
    "roles": roles,
    "events": event_reference,
    "tables": tables,
    "settings": settings,
    "ports": port_reference,
    "works": works,
    "command_line": command_line,
}


def generated(page: str) -> str:
    """The page with its parts generated."""
    return PART.sub(lambda found: f"{found[1]}\n{PARTS[found[2]]()}\n\n{found[3]}", page)


def files(docs: Path) -> dict[Path, str]:
    """The generated text of the pages of a folder and of the bus contract, by path."""
    pages = {path: generated(path.read_text("utf-8")) for path in sorted(docs.glob("*.md"))}
    # Of the checkout, not of the installed package, which may be older.
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    return pages | {docs / "asyncapi.json": json.dumps(document(version), indent=2, ensure_ascii=False) + "\n"}


def main() -> int:
    """Write what has changed."""
    for path, text in files(DOCS).items():
        path.write_text(text, "utf-8")
    kept = set(write_schemas(DOCS / "schemas"))
    for path in set((DOCS / "schemas").iterdir()) - kept:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
