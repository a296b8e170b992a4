"""The databases that the operator of the installation lets tenants query, by name."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError


class Connection(BaseModel):
    """A PostgreSQL database, and the tenants that may query it; `*` stands for all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: SecretStr
    tenants: list[str] = Field(min_length=1)

    def is_for(self, tenant: str) -> bool:
        return tenant in self.tenants or "*" in self.tenants


_CONNECTIONS = TypeAdapter(dict[str, Connection])


def connections(text: str) -> Mapping[str, Connection]:
    """The databases in the text of a setting. Raises: ValueError, without the text, which has passwords."""
    if not text.strip():
        return {}
    try:
        return _CONNECTIONS.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        form = '{"sales": {"url": "postgresql://…", "tenants": ["acme"]}}'
        raise ValueError(f"must be like {form}; at {place or 'the beginning'}: {first['msg']}") from None
