"""The reference parts of docs/, made from the code: `python -m ops.docs` writes them anew.

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`; the rest of a page is written by hand.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from rich.text import Text
from sqlalchemy.dialects import postgresql
from typer.main import get_command

from domain.aggregate import Aggregate
from handlers import ports
from handlers.commands.fields import Command, Ref
from handlers.routes import ROUTES
from ops.asyncapi import document, event_model, events, write_schemas
from ops.cli import app
from ops.settings import CONFIG, PREFIX, Settings
from projections.catalog import READ_MODELS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

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


def fields(schema: dict[str, Any], of: str) -> Iterator[Field]:
    """The fields of a JSON Schema, those of inner objects after the field that holds them; `of` names the whole."""
    yield from _fields(schema, schema.get("$defs", {}), of, "")


def _fields(schema: dict[str, Any], defs: dict[str, Any], of: str, prefix: str) -> Iterator[Field]:
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
        description = given.get("description") or MEANINGS.get(f"{of}.{path}") or MEANINGS.get(path, "")
        description += "." * (description[-1:] not in ("", ".", "…"))
        yield Field(path, kind + " or null" * nullable, _rules(inner), default, description)
        if "properties" in inner:
            yield from _fields(inner, defs, of, f"{path}.")
        elif "properties" in item:
            yield from _fields(item, defs, of, f"{path}[].")


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
    """What a value has to be, in words."""
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
        examples.setdefault(example["outcome"]["name"], example)
    return "\n\n".join(_command(name, route.command, examples[name]) for name, route in ROUTES.items())


def _command(name: str, command: type[Command], example: dict[str, Any]) -> str:
    named = {field: kind.TOPIC for field, kind in references(command)}

    def rows() -> Iterator[tuple[str, ...]]:
        for field in fields(command.model_json_schema(), name):
            rules = field.rules
            if noun := named.get(field.path.rpartition(".")[2]):
                rules = f"{rules}, " * bool(rules) + f"{noun} must exist"
            default = {None: "**required**", BELOW: BELOW}.get(field.default, f"`{field.default}`")
            yield f"`{field.path}`", field.type, default, rules, field.description

    outcome = {key: example["outcome"][key] for key in ("status", "version", "ids")}
    return f"""### {name}

{inspect.getdoc(command)}

{table("Field", "Type", "Default", "Rules", "Meaning", rows=rows())}

```
cmd.default.{name}   Nats-Msg-Id: {example["outcome"]["command"]}
{_short(example["payload"])}
```

Outcome: `{json.dumps(outcome, ensure_ascii=False)}`. Schema: [{name}.json](schemas/{name}.json)."""


def _short(payload: dict[str, Any]) -> str:
    line = json.dumps(payload, ensure_ascii=False)
    return line if len(line) < 120 else json.dumps(payload, ensure_ascii=False, indent=2)


def references(command: type[Command]) -> Iterator[tuple[str, type[Aggregate]]]:
    """The fields that name an aggregate, and its kind; inner objects' fields by their own name."""

    def marks(hint: Any) -> Iterator[type[Aggregate]]:
        for argument in get_args(hint):
            if isinstance(argument, Ref):
                yield argument.kind
            else:
                yield from marks(argument)

    for name, hint in get_type_hints(command, include_extras=True).items():
        if hasattr(hint, "model_fields"):
            yield from references(hint)
        else:
            yield from ((name, kind) for kind in marks(hint))


def event_reference() -> str:
    """Every event: when, where, and with which fields."""
    parts = []
    for name, (noun, event) in events().items():
        model = event_model(event)
        state = model.model_json_schema()["$defs"][f"{model.__name__}State"]
        whole = {**state, "$defs": model.model_json_schema().get("$defs", {})}
        rows = ((f"`{field.path}`", field.type, field.description) for field in fields(whole, name))
        sealed = ", ".join(f"`{field}`" for field in sorted(event.PERSONAL))
        sealed = f" Of a person, {sealed} are sealed." * bool(sealed)
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
        for field in fields({"properties": properties}, "settings"):
            given = Settings.model_fields[field.path].default
            default = "" if given in (None, "") else f"`{given}`"
            kind = field.type.removesuffix(" or null")
            rules = f" ({field.rules})" if field.rules else ""
            yield f"`{PREFIX}{field.path.upper()}`", f"`{field.path}`", kind + rules, default, field.description
        yield f"`{CONFIG}`", "", "string", "`headrace.toml` in the home", "The file that the settings are read from."

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


def command_line() -> str:
    """Every command of `headrace`, with its arguments and options."""
    parts = []
    for name, command in leaves(get_command(app)):
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


PARTS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "events": event_reference,
    "tables": tables,
    "settings": settings,
    "ports": port_reference,
    "command_line": command_line,
}


def generated(page: str) -> str:
    """The page with its generated parts made anew."""
    return PART.sub(lambda found: f"{found[1]}\n{PARTS[found[2]]()}\n\n{found[3]}", page)


def files(docs: Path) -> dict[Path, str]:
    """What the pages of a folder, and the contract of the bus beside them, have to say now."""
    pages = {path: generated(path.read_text("utf-8")) for path in sorted(docs.glob("*.md"))}
    return pages | {docs / "asyncapi.json": json.dumps(document(), indent=2, ensure_ascii=False) + "\n"}


def main() -> int:
    """Write what has changed."""
    for path, text in files(DOCS).items():
        path.write_text(text, "utf-8")
    kept = set(write_schemas(DOCS / "schemas"))
    for path in set((DOCS / "schemas").iterdir()) - kept:
        path.unlink()
    return 0


MEANINGS = {
    "timestamp": "When it happened.",
    "originator_topic": "Noun that the aggregate is one of.",
    "name": "Name, for people.",
    "description": "Description, for people.",
    "app": "App.",
    "dataset": "Knowledge base.",
    "embedding_model": "Embedding model, by the name of its folder or on the hub.",
    "document": "Document.",
    "conversation": "Conversation.",
    "message": "Message.",
    "provider": "Provider, by its name.",
    "message.send.conversation": "Conversation to go on with; null starts one.",
    "number": "Number of the configuration, from 1.",
    "model": "Chat model that answers.",
    "model.provider": "`builtin`, or the name of a registered provider.",
    "model.name": "Name of the model at its provider.",
    "model.max_tokens": "Tokens reserved for the answer.",
    "model.context_window": "Tokens that prompt and answer may have together.",
    "model.parameters": "Passed on to the model.",
    "prompt": "Instructions to the model; `{{name}}` stands for a variable. Empty: the built-in ones.",
    "variables": "Values that the asker fills in.",
    "variables[].name": "Name, as in the prompt.",
    "variables[].required": "A message without a value is rejected.",
    "variables[].default": "Value when the asker gives none.",
    "datasets": "Knowledge bases that are searched.",
    "retrieval": "How segments are looked for.",
    "retrieval.mode": "By meaning, by words, or by both.",
    "retrieval.weight": "Share of the meaning in a hybrid score; null: ranks are fused.",
    "retrieval.top_k": "Segments that the model is given at most.",
    "retrieval.metadata_filter": "Which documents are searched, by their metadata.",
    "retrieval.metadata_filter.mode": "`disabled`, `manual`, or `automatic`: a model makes it out of the question.",
    "retrieval.metadata_filter.logical_operator": "All conditions are to be met (`and`), or one (`or`).",
    "retrieval.metadata_filter.conditions": "What the metadata of a document must say.",
    "retrieval.metadata_filter.conditions[].name": "Name of the metadata field.",
    "retrieval.metadata_filter.conditions[].comparison_operator": "How its value is compared.",
    "retrieval.metadata_filter.conditions[].value": "What it is compared with; null where with nothing.",
    "retrieval.neighbours": "So many segments before and after each hit are given with it.",
    "retrieval.rerank": "What puts the hits into a better order; null: nothing does.",
    "retrieval.rerank.provider": "`builtin`, or the name of a registered provider.",
    "retrieval.rerank.model": "Model of the provider; null: the one that `builtin` has.",
    "retrieval.rerank.top_n": "So many of the best hits are reranked.",
    "retrieval.score_threshold": "Least score of a hit; null: none. Scores of two modes are not comparable.",
    "user": "Who asks, as the app's operator names them.",
    "parent": "Message before this one; null for the first.",
    "configuration": "Number of the configuration that answers.",
    "query": "Question.",
    "inputs": "Values of the app's variables, by name.",
    "attempt": "Counts from 1; a worker that died costs one.",
    "answer": "Answer, as far as it came.",
    "citations": "What the answer rests on, the best first.",
    "citations[].position": "Number in the answer, from 1.",
    "citations[].dataset": "Knowledge base of the segment.",
    "citations[].document": "Document of the segment.",
    "citations[].document_name": "Its name.",
    "citations[].segment": "Segment.",
    "citations[].segment_position": "Its place in the document, from 0.",
    "citations[].page": "Page, from 1; null where the format has none.",
    "citations[].heading": "Headings above it, outermost first.",
    "citations[].sentence": "Sentence that the answer rests on.",
    "citations[].content": "Text of the segment.",
    "citations[].score": "Score in its search; comparable within one search only.",
    "usage": "Tokens.",
    "usage.prompt_tokens": "Tokens that were sent.",
    "usage.completion_tokens": "Tokens that came back.",
    "usage.estimated": "The server did not count; these are estimates.",
    "cut": "What did not fit the context window.",
    "cut.segments": "Segments.",
    "cut.messages": "Earlier messages.",
    "model_call": "Model call that gave the answer.",
    "duration_ms": "Milliseconds that it took.",
    "code": "Why, for programs: see [codes](codes.md).",
    "reason": "Why, for people.",
    "rating": "Judgement; null takes it back.",
    "content": "Words that go with the rating.",
    "end_user.erase.user": "User whose words nobody is to read any more, as `message.send` names them.",
    "known": "Whether anybody had ever asked under the name.",
    "media_type": "Media type.",
    "digest": "SHA-256 of the file in hex: the name of its blob.",
    "size": "Bytes of the file.",
    "metadata": "What else you want to keep with the document; at most 16 KiB of JSON.",
    "segmentation": "Rules by which texts are cut: see [segmenting](segmenting.md).",
    "segmentation.mode": "How texts are cut.",
    "segmentation.max_tokens": "Tokens of a segment.",
    "segmentation.parent.kind": "What a parent is.",
    "document.replaced.v1.segments": "SHA-256 in hex of the blob that holds the segments of the earlier cut.",
    "document.replaced.v1.count": "Segments of the earlier cut.",
    "settled": "Version of the document up to which the index follows.",
    "segment": "Segment.",
    "after": "Segment that it follows; null: the last one.",
    "position": "Place in the document, from 0.",
    "segment.add.content": "Text; with an answer, the question.",
    "segment.add.answer": "Answer that the model is given with it; null: none.",
    "segment.edit.content": "Text; null: as it was.",
    "segment.edit.answer": "Answer; null: as it was.",
    "segment.added.v1.content": "Text; with an answer, the question.",
    "segment.added.v1.answer": "Answer that the model is given with it; null: none.",
    "segment.edited.v1.content": "Text; null: as it was.",
    "segment.edited.v1.answer": "Answer; null: as it was.",
    "document.set_metadata.metadata": "Values to set, by name; null takes one away. At most 16 KiB of JSON.",
    "document.metadata_set.v1.metadata": "Values that were set, by name; null: taken away.",
    "field": "Field, in `dataset_metadata`.",
    "dataset.add_metadata_field.name": "Name of the field.",
    "dataset.rename_metadata_field.name": "Name of the field.",
    "dataset.remove_metadata_field.name": "Name of the field.",
    "dataset.metadata_field_added.v1.name": "Name of the field.",
    "dataset.metadata_field_renamed.v1.name": "Name that the field had.",
    "dataset.metadata_field_removed.v1.name": "Name of the field.",
    "new_name": "Name that the field is to have.",
    "dataset.metadata_field_renamed.v1.new_name": "Name that it has now.",
    "type": "`string`, `number` or `time`: ISO 8601, or seconds since 1970.",
    "stage": "`parsing`, `splitting` or `indexing`.",
    "pages": "Pages; null where the format has none.",
    "document.parsed.v2.title": "Title that the file gives itself; null where it gives none.",
    "characters": "Characters of the extracted text.",
    "segments": "SHA-256 in hex of the blob that holds the segments.",
    "count": "Segments.",
    "tokens": "Tokens of all segments, as the embedding model counts.",
    "conversation.fork.message": "Answered message that the new conversation goes on after.",
    "conversation.forked.v1.conversation": "Conversation that it was forked from.",
    "conversation.forked.v1.message": "Message of that conversation that it goes on after.",
    "messages": "What went before, oldest first.",
    "messages[].message": "Message of the conversation that it was forked from.",
    "messages[].configuration": "Number of the configuration that answered.",
    "messages[].query": "Question.",
    "messages[].inputs": "Values of the app's variables, by name.",
    "messages[].answer": "Answer.",
    "hits": "All that was found, best first.",
    "hits[].segment": "Segment.",
    "hits[].dataset": "Knowledge base of the segment.",
    "hits[].document": "Document of the segment.",
    "hits[].position": "Its place in the document, from 0.",
    "hits[].page": "Page, from 1; null where the format has none.",
    "hits[].heading": "Headings above it, outermost first.",
    "hits[].score": "Score in its search; comparable within one search only.",
    "hits[].semantic_rank": "Rank by meaning, from 1; null when it was not found so.",
    "hits[].full_text_rank": "Rank by words, from 1; null when it was not found so.",
    "hits[].fusion_rank": "Rank among all that was found, from 1.",
    "hits[].rerank_score": "Score by the reranker; null when it did not have it.",
    "hits[].rerank_rank": "Rank by that score, from 1.",
    "hits[].rank": "Final rank, from 1; null when it was dropped.",
    "hits[].dropped": "Why it was: `deleted`, `disabled`, `below_threshold`, `duplicate`, `joined` or `beyond_top_k`; "
    "null when it was not.",
    "hits[].first": "First position of the document that the model is given for it; null when it was dropped.",
    "hits[].last": "Last position of the document that the model is given for it; null when it was dropped.",
    "filter": "Conditions by which documents were chosen; null: all were searched.",
    "filter.mode": "`manual`, or `automatic`: a model made it out of the question.",
    "filter.logical_operator": "All conditions were to be met (`and`), or one (`or`).",
    "filter.conditions": "What the metadata of a document had to say.",
    "filter.conditions[].name": "Name of the metadata field.",
    "filter.conditions[].comparison_operator": "How its value was compared.",
    "filter.conditions[].value": "What it was compared with; null where with nothing.",
    "documents": "So many documents met these conditions; null: all were searched.",
    "faults": "Steps that it had to do without.",
    "faults[].step": "`filter` or `rerank`.",
    "faults[].code": "Why, for programs; the model call has the reason.",
    "retrieval.made.v2.datasets": "Knowledge bases that were searched.",
    "retrieval.made.v2.code": "Why it failed, for programs: `unreachable` or `internal_error`; null when it did not.",
    "retrieval.made.v2.reason": "Why it failed, for people; null when it did not.",
    "call": "Model call that is made again.",
    "replay.request.model.provider": "`builtin`, or the name of a registered provider.",
    "replay.request.model.name": "Name of the model at its provider.",
    "replay.requested.v1.model": "Name of the model at its provider.",
    "replay.requested.v1.app": "App whose configuration it is; null with it.",
    "replay.requested.v1.configuration": "Configuration whose instructions are sent; null: those that were.",
    "max_tokens": "Tokens reserved for the answer.",
    "parameters": "Passed on to the model.",
    "replay.completed.v1.model_call": "Model call that was made.",
    "replay.failed.v1.model_call": "Model call that failed; null when none was made.",
    "budget": "Budget, by its name.",
    "budget.set.name": "Name of the budget; the same name again changes it.",
    "scope": "What it is for: `tenant`, `app`, `model` or `user`.",
    "budget.set.v1.subject": "Id of the app, name of the model or user; empty for the tenant.",
    "budget.changed.v1.subject": "Id of the app, name of the model or user; empty for the tenant.",
    "amount_usd": "US dollars in a calendar month.",
    "server": "Where the model answers, as `host:port`; empty for one within the worker.",
    "sources": "Where each part of the messages comes from, in order.",
    "sources[].message": "Number of the message, from 0.",
    "sources[].start": "First character (code point) of the part in the message, from 0.",
    "sources[].end": "Character after the last.",
    "sources[].from": "`instructions`, `input`, `segment`, `history` or `query`.",
    "sources[].app": "Of instructions: their app.",
    "sources[].configuration": "Of instructions: number of their configuration.",
    "sources[].name": "Of an input: the variable, within the instructions.",
    "sources[].segment": "Of a segment: its id.",
    "sources[].document": "Of a segment: its document.",
    "sources[].dataset": "Of a segment: its knowledge base.",
    "sources[].rank": "Of a segment: its final rank in the retrieval.",
    "sources[].score": "Of a segment: its score there.",
    "sources[].conversation": "Of the query: its conversation.",
    "sources[].message_id": "Of the query, or of an earlier question or answer: its message.",
    "usage.cached_tokens": "Of the tokens sent, those that the server read from its cache; null: it does not say.",
    "usage.cache_write_tokens": "Those that it wrote into its cache; null: it does not say.",
    "usage.reasoning_tokens": "Of the tokens that came back, those of reasoning; null: it does not say.",
    "usage.raw": "What the server sent about it; empty when it sent nothing, or more than 16 KiB.",
    "response_id": "Id that the server gave the answer; null when it gave none.",
    "response_model": "Model as the server names it; null when it does not.",
    "document.split.v1.model": "Embedding model that it was split for.",
    "first": "Position of the first of these segments, from 0.",
    "kind": "`chat` or `embedding`.",
    "model_call.requested.v2.model": "Name of the model at its provider.",
    "cause_noun": "What it is made for: `message`, `document`, `replay`, or `dataset` where one is tested.",
    "cause_id": "Id of that message, document, replay or query of datasets.",
    "request": "What is sent: `messages`, `max_tokens`, `parameters`; or `texts`, `tokens` of an embedding.",
    "response": "What came back, as far as it came; empty for an embedding.",
    "finish_reason": "Why the model ended, as its server says.",
    "first_token_ms": "Milliseconds to the first piece of the answer.",
    "provider.register.name": "Name that apps call it by; the same name again changes it.",
    "base_url": "Address of its OpenAI-compatible API, like `https://host/v1`.",
    "key": "API key; empty when the server wants none. Only its encrypted form is kept.",
    "message.retry.message": "Message whose answer failed.",
    "consumer": "Durable consumer that could not handle it.",
    "stream": "Stream that it came from.",
    "sequence": "Its sequence in that stream.",
    "subject": "Its subject.",
    "dead_letter.buried.v1.message": "Its id: of a command that of its outcome, else that of the commit.",
    "dead_letter.buried.v1.reason": "What it died of.",
    "dead_letter.returned.v1.reason": "What it died of this time.",
    "where": "Line of code that failed last, as `file:function:line`; empty when workers died of it.",
    "stack": "Digest of all the lines that led there; equal for equal failures.",
    "failures": "How often it failed by itself.",
    "deaths": "How often a worker died with it in hand.",
    "dead_letter": "Dead letter.",
    "sealed_key": "API key, encrypted; empty when there is none.",
}
"""Fields that do not say it themselves, by their path, or by event or command and path."""

if __name__ == "__main__":
    sys.exit(main())
