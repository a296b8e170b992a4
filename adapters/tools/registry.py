"""The toolboxes of a tenant's toolsets, by their kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from domain.tools.toolset import Toolset
from handlers.ports.tools import Toolbox, ToolError

Make = Callable[[str, Toolset], Toolbox]
"""Makes the toolbox of a tenant's toolset."""


class KindsOfToolboxes:
    """The port Toolboxes."""

    def __init__(self, builtin: Toolbox, kinds: Mapping[str, Make]) -> None:
        self._builtin = builtin
        self._kinds = kinds

    async def get(self, tenant: str, toolset: Toolset | None) -> Toolbox:
        if toolset is None:
            return self._builtin
        if (make := self._kinds.get(toolset.kind)) is None:
            raise ToolError("unsupported", f"This worker has no toolsets of kind {toolset.kind}.")
        return make(tenant, toolset)
