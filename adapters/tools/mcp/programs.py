"""Servers that the operator starts: named programs, each in a contained process of its own for each tenant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapters.sandbox.child import Limits

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class Program(BaseModel):
    """A program that speaks MCP over its standard input and output."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: Annotated[str, Field(pattern=r"^/", description="Path of the program.")]
    args: list[str] = Field([], description="Its arguments.")
    env: dict[str, str] = Field({}, description="Its environment variables.")
    secret_env: str = Field("", description="Variable that gets the secret of the toolset; empty for none.")
    network: bool = Field(False, description="True if it may open connections, to any address.")
    readable: list[Path] = Field([], description="Files and folders that it may read, besides those of the system.")
    memory_mb: Annotated[int, Field(ge=0)] = Field(
        2048, description="Maximum address space of a process, in mebibytes; 0: no limit."
    )

    @property
    def limits(self) -> Limits:
        return Limits(
            memory=self.memory_mb * 2**20 or None,
            cpu_s=3600,
            file=2**26,
            files=256,
            tasks=128,
            forks=True,
            scratch=2**26,
            network=self.network,
        )


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    mcpServers: dict[Name, Program]  # as MCP clients name it


def read(path: Path) -> dict[str, Program]:
    """The programs in a JSON file, by name. Raises: ValueError, with the rule that is broken."""
    try:
        return _File.model_validate(orjson.loads(path.read_bytes())).mcpServers
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise ValueError(f"{path}, {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except ValueError:
        raise ValueError(f"{path} is not JSON") from None
