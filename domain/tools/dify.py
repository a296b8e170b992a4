"""The contents of a package of Dify, as its files declare them."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict


class Price(TypedDict):
    """Prices in US dollars per million tokens."""

    input: Annotated[float, "Tokens of the prompt."]
    output: Annotated[float, "Tokens of the answer."]


class Field(TypedDict):
    """A field of a form with credentials."""

    name: Annotated[str, "Name."]
    type: Annotated[str, "Type, as `secret-input`, `text-input`, `select` or `boolean`."]
    required: Annotated[bool, "True if it must be given."]
    default: Annotated[Any, "Value where none is given; null for none."]
    options: Annotated[list[str], "Values of a `select`."]
    label: Annotated[str, "Name, for people."]
    when: Annotated[dict[str, str], "Values of other fields with which it is asked for."]


class Parameter(TypedDict):
    """A parameter of a tool or a strategy."""

    name: Annotated[str, "Name."]
    type: Annotated[str, "Type, as `string`, `number`, `boolean`, `select` or `file`."]
    form: Annotated[str, "`llm`: the model gives it; `form` or `schema`: the toolset does."]
    required: Annotated[bool, "True if it must be given."]
    description: Annotated[str, "Description, for models."]
    default: Annotated[Any, "Value where none is given; null for none."]
    options: Annotated[list[str], "Values of a `select`."]
    minimum: Annotated[float | None, "Least number; null for none."]
    maximum: Annotated[float | None, "Largest number; null for none."]
    multiple: Annotated[bool, "True if it takes a list of options."]
    json_schema: Annotated[dict[str, Any] | None, "JSON Schema of an object or an array; null for none."]


class DifyTool(TypedDict):
    """A tool."""

    name: Annotated[str, "Name."]
    label: Annotated[str, "Name, for people."]
    description: Annotated[str, "Description, for models."]
    parameters: Annotated[list[Parameter], "Parameters."]


class ToolProvider(TypedDict):
    """Tools with the same credentials."""

    name: Annotated[str, "Name."]
    label: Annotated[str, "Name, for people."]
    description: Annotated[str, "Description, for people."]
    credentials: Annotated[list[Field], "Form with credentials; empty for none."]
    tools: Annotated[list[DifyTool], "Tools."]


class Predefined(TypedDict):
    """A model that the package knows."""

    name: Annotated[str, "Name."]
    type: Annotated[str, "Type, as in the catalogue."]
    context_window: Annotated[int | None, "Maximum tokens of prompt and answer together; null when unknown."]
    max_output: Annotated[int | None, "Maximum tokens of an answer; null when unknown."]
    abilities: Annotated[dict[str, bool], "Abilities by name."]
    prices: Annotated[Price | None, "Prices; null when unknown."]
    deprecated: Annotated[bool, "True if its provider gives it up."]


class ModelProvider(TypedDict):
    """Models with the same credentials."""

    name: Annotated[str, "Name."]
    label: Annotated[str, "Name, for people."]
    types: Annotated[list[str], "Types of its models, as in the catalogue."]
    credentials: Annotated[list[Field], "Form with credentials of the provider; empty for none."]
    of_models: Annotated[list[Field], "Form with credentials of a model that is not predefined; empty for none."]
    models: Annotated[list[Predefined], "Predefined models."]


class Strategy(TypedDict):
    """A strategy of agents."""

    name: Annotated[str, "Name."]
    label: Annotated[str, "Name, for people."]
    description: Annotated[str, "Description, for people."]
    parameters: Annotated[list[Parameter], "Parameters."]


class StrategyProvider(TypedDict):
    """Strategies of agents."""

    name: Annotated[str, "Name."]
    strategies: Annotated[list[Strategy], "Strategies."]


class Declared(TypedDict):
    """The contents of a package."""

    author: Annotated[str, "Author."]
    label: Annotated[str, "Name, for people."]
    tools: Annotated[list[ToolProvider], "Providers of tools."]
    models: Annotated[list[ModelProvider], "Providers of models."]
    strategies: Annotated[list[StrategyProvider], "Providers of strategies of agents."]
    permissions: Annotated[list[str], "Calls back that it asks for and may make: `tool`, `model.llm`, `storage`."]
    storage: Annotated[int, "Maximum bytes that it may store for a tenant; 0 for none."]
    warnings: Annotated[list[str], "Parts that it has or asks for, and that are left out."]


def strategies(declared: Declared, provider: str = "", strategy: str = "") -> list[tuple[str, Strategy]]:
    """The strategies of a package with these names, each with its provider; an empty name stands for all."""
    return [
        (each["name"], one)
        for each in declared["strategies"]
        for one in each["strategies"]
        if provider in ("", each["name"]) and strategy in ("", one["name"])
    ]
