"""Randomly generated graphs, in the shapes of recorded cases: branches, joins, errors, containers and variables."""

from __future__ import annotations

import random
from typing import Any

Node = dict[str, Any]
Tail = tuple[str, str]
"""A node and a handle, from which an edge goes on."""

INPUTS: dict[str, Any] = {
    "t": ["x", "", "a b"],
    "n": [0, 2, 2.5],
    "b": [True, False],
    "z": [None],
    "l": [["a", "b", "c"], [], ["b", ""]],
    "m": [[3, 1, 2.5], [1]],
    "o": [{"k": "K", "n": None}, {}],
}
CODES = [
    ("string", "str(v)[:20]"),
    ("number", "len(str(v))"),
    ("boolean", "bool(v)"),
    ("object", "{'v': str(v), 'd': {'n': 1}}"),
    ("array[string]", "[str(v)[:9], 'q']"),
    ("array[number]", "[len(str(v)), 2]"),
    ("array[object]", "[{'k': str(v)[:9]}]"),
    ("string", "str(v)[0]"),
    ("number", "1 / (len(str(v)) % 3)"),
]
"""Types and expressions of a value `v`; the last ones may fail."""


class Maker:
    """A graph with the variables that its nodes may read."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.seed = seed
        self.nodes: list[Node] = []
        self.edges: list[dict[str, Any]] = []
        self.conversation: list[dict[str, Any]] = []
        self.known: list[list[str]] = []
        """Selectors of values that are there, or of nodes that may be skipped."""
        self.owner: str | None = None

    def case(self) -> dict[str, Any]:
        inputs = {name: self.chance.choice(values) for name, values in INPUTS.items()}
        chat = self.chance.random() < 0.4
        fields = [{"variable": name, "label": name, "type": "text-input", "required": False} for name in inputs]
        start = self.add("start", [], variables=fields)
        self.known = [[start, name] for name in inputs]
        self.finish(self.block([(start, "source")], 2), chat)
        graph = {"nodes": self.nodes, "edges": self.edges}
        mode = "advanced-chat" if chat else "workflow"
        return {
            "id": f"made/{self.seed}",
            "area": "made",
            "mode": mode,
            "inputs": inputs,
            "models": {"m": {"replies": [{"chunks": ["o", "k"]}, {"error": "busy"}, {"text": "again"}]}},
            "graph": {
                "kind": "app",
                "version": "0.6.0",
                "app": {"mode": mode, "name": "made"},
                "workflow": {
                    "graph": graph,
                    "features": {},
                    "environment_variables": [],
                    "conversation_variables": self.conversation,
                },
            },
        }

    def finish(self, tails: list[Tail], chat: bool) -> None:
        """End with a response node for all tails, or with one for each. Those run at once: their order is random,
        so they say nothing that another branch decides."""
        if chat or self.chance.random() < 0.6:
            groups, known = [tails], self.known
        else:
            groups, known = [[tail] for tail in tails], self.known[: len(INPUTS)]
        for number, group in enumerate(groups):
            chosen = [self.chance.choice(known) for _ in range(self.chance.randint(1, 4))]
            if chat:
                text = " ".join(f"{{{{#{'.'.join(each)}#}}}}" for each in chosen)
                self.add("answer", group, answer=f"A {text}")
            else:
                outputs = [{"variable": f"v{number}{n}", "value_selector": each} for n, each in enumerate(chosen)]
                self.add("end", group, outputs=outputs)

    def block(self, tails: list[Tail], depth: int) -> list[Tail]:
        for _ in range(self.chance.randint(1, 3)):
            kinds = [self.step, self.step, self.step, self.branch, self.fork, self.fallible]
            if self.owner is None:
                kinds += [self.iteration, self.loop]
            tails = self.chance.choice(kinds if depth else [self.step])(tails, depth)
        return tails

    def step(self, tails: list[Tail], depth: int) -> list[Tail]:
        """A node that hardly fails."""
        kind = self.chance.choice(["template", "template", "aggregate", "code", "list", "llm", "assign"])
        id = getattr(self, f"_{kind}")(tails)
        return [(id, "source")]

    def branch(self, tails: list[Tail], depth: int) -> list[Tail]:
        """Some cases, each with a way of its own, or with none."""
        handles = [f"c{number}" for number in range(self.chance.randint(1, 2))]
        cases = []
        for handle in handles:
            conditions = [self.condition() for _ in range(self.chance.randint(1, 2))]
            cases.append(
                {"case_id": handle, "logical_operator": self.chance.choice(["and", "or"]), "conditions": conditions}
            )
        id = self.add("if-else", tails, cases=cases)
        return self.ways(id, [*handles, "false"], depth)

    def fork(self, tails: list[Tail], depth: int) -> list[Tail]:
        """Branches that run at once."""
        id = self._template(tails)
        return self.ways(id, ["source"] * self.chance.randint(2, 3), depth)

    def ways(self, id: str, handles: list[str], depth: int) -> list[Tail]:
        before, found, ends = self.known, list(self.known), list[Tail]()
        for handle in handles:
            self.known = list(before)
            if self.chance.random() < 0.8:
                ends += self.block([(id, handle)], depth - 1)
            else:
                ends.append((id, handle))
            found += self.known[len(before) :]
        self.known = found
        return ends

    def fallible(self, tails: list[Tail], depth: int) -> list[Tail]:
        """A node that may fail, with a strategy."""
        strategy = self.chance.choice(["fail-branch", "default-value"])
        more: dict[str, Any] = {"error_strategy": strategy}
        if strategy == "default-value":
            more["default_value"] = [{"key": "r", "type": "string", "value": "D"}]
        if self.chance.random() < 0.3:
            more["retry_config"] = {"retry_enabled": True, "max_retries": 1, "retry_interval": 1}
        type, expression = self.chance.choice(CODES[-2:])
        id = self._code(tails, type, expression, **more)
        if strategy == "default-value":
            return [(id, "source")]
        return self.ways(id, ["source", "fail-branch"], depth)

    def iteration(self, tails: list[Tail], depth: int) -> list[Tail]:
        source = [self.known[0][0], self.chance.choice("lm")]
        mode = self.chance.choice(["terminated", "continue-on-error", "remove-abnormal-output"])
        parallel = {"is_parallel": self.chance.random() < 0.4, "parallel_nums": self.chance.randint(1, 4)}
        id = self.add("iteration", tails, iterator_selector=source, error_handle_mode=mode, **parallel)
        inner = self.within(id, "iteration-start", [[id, "item"], [id, "index"]])
        data = next(node["data"] for node in self.nodes if node["id"] == id)
        data.update(start_node_id=f"{id}start", output_selector=self.chance.choice(inner))
        data["flatten_output"] = self.chance.random() < 0.5
        self.known.append([id, "output"])
        return [(id, "source")]

    def loop(self, tails: list[Tail], depth: int) -> list[Tail]:
        variable = {"id": "n", "label": "n", "var_type": "number", "value_type": "constant", "value": 0}
        over = {"id": "1", "variable_selector": ["", "n"], "comparison_operator": "≥", "value": "2"}
        id = self.add("loop", tails, loop_count=self.chance.randint(1, 4), logical_operator="and")
        data = next(node["data"] for node in self.nodes if node["id"] == id)
        over["variable_selector"] = [id, "n"]
        conditions = [over] if self.chance.random() < 0.5 else []
        data.update(start_node_id=f"{id}start", loop_variables=[variable], break_conditions=conditions)
        self.within(id, "loop-start", [[id, "n"]], counts=[id, "n"])
        self.known += [[id, "n"], [id, "loop_round"]]
        return [(id, "source")]

    def within(self, id: str, type: str, own: list[list[str]], counts: list[str] | None = None) -> list[list[str]]:
        """Nodes inside of a container; the values that its items put out."""
        before = list(self.known)
        self.owner = id
        self.known = [*self.known, *own]
        self.nodes.append({"id": f"{id}start", "data": {"type": type, "title": ""}, "parentId": id})
        tails: list[Tail] = [(f"{id}start", "source")]
        if counts:
            item = {"variable_selector": counts, "input_type": "constant", "operation": "+=", "value": 1}
            tails = [(self.add("assigner", tails, version="2", items=[item]), "source")]
        self.block(tails, 1)
        inner = self.known[len(before) :]
        self.owner = None
        self.known = before
        return inner

    # --- nodes

    def add(self, type: str, tails: list[Tail], **data: Any) -> str:
        id = f"n{len(self.nodes)}"
        node: Node = {"id": id, "data": {"type": type, "title": id, **data}}
        if self.owner:
            node["parentId"] = self.owner
        self.nodes.append(node)
        for source, handle in tails:
            edge = {"id": f"e{len(self.edges)}", "source": source, "sourceHandle": handle, "target": id}
            self.edges.append(edge)
        return id

    def any(self) -> list[str]:
        return self.chance.choice(self.known)

    def _template(self, tails: list[Tail]) -> str:
        names = [{"variable": f"v{number}", "value_selector": self.any()} for number in range(2)]
        id = self.add("template-transform", tails, template="<{{ v0 }}|{{ v1 }}>", variables=names)
        self.known.append([id, "output"])
        return id

    def _aggregate(self, tails: list[Tail]) -> str:
        id = self.add("variable-aggregator", tails, output_type="string", variables=[self.any(), self.any()])
        self.known.append([id, "output"])
        return id

    def _code(self, tails: list[Tail], type: str = "", expression: str = "", **more: Any) -> str:
        if not type:
            type, expression = self.chance.choice(CODES[:7])
        code = f"def main(v):\n    return {{'r': {expression}}}"
        id = self.add(
            "code",
            tails,
            code_language="python3",
            code=code,
            outputs={"r": {"type": type, "children": None}},
            variables=[{"variable": "v", "value_selector": self.any()}],
            **more,
        )
        self.known.append([id, "r"])
        return id

    def _list(self, tails: list[Tail]) -> str:
        name = self.chance.choice("lm")
        operator, value = ("contains", "b") if name == "l" else (">", "1")
        id = self.add(
            "list-operator",
            tails,
            variable=[self.known[0][0], name],
            filter_by={"enabled": True, "conditions": [{"key": "", "comparison_operator": operator, "value": value}]},
            order_by={"enabled": True, "key": "", "value": self.chance.choice(["asc", "desc"])},
            limit={"enabled": self.chance.random() < 0.5, "size": 1},
        )
        self.known += [[id, "result"], [id, "first_record"]]
        return id

    def _llm(self, tails: list[Tail]) -> str:
        id = self.add(
            "llm",
            tails,
            model={"provider": "p", "name": f"m{len(self.nodes)}", "mode": "chat", "completion_params": {}},
            prompt_template=[{"role": "user", "text": "hello"}],
            context={"enabled": False},
            vision={"enabled": False},
        )
        self.known.append([id, "text"])
        return id

    def _assign(self, tails: list[Tail]) -> str:
        if self.owner:
            return self._template(tails)
        name = f"c{len(self.conversation)}"
        self.conversation.append(
            {"id": name, "name": name, "value_type": "string", "value": "old", "selector": ["conversation", name]}
        )
        item = {"variable_selector": ["conversation", name], "input_type": "constant", "operation": "set", "value": "N"}
        id = self.add("assigner", tails, version="2", items=[item])
        self.known.append(["conversation", name])
        return id

    def condition(self) -> dict[str, Any]:
        start = self.known[0][0]
        name, operator, value = self.chance.choice(
            [
                ("t", "contains", "a"),
                ("t", "is", "x"),
                ("t", "empty", ""),
                ("n", "=", "2"),
                ("n", "≥", "2"),
                ("b", "is", "true"),
                ("z", "null", ""),
                ("l", "contains", "b"),
                ("l", "not empty", ""),
                ("o", "empty", ""),
                ("nope", "is", "x"),
            ]
            if self.chance.random() < 0.1
            else [("t", "contains", "a"), ("n", ">", "1"), ("b", "is", "true"), ("l", "not contains", "c")]
        )
        path = self.any() if self.chance.random() < 0.1 else [start, name]
        return {"id": "1", "variable_selector": path, "comparison_operator": operator, "value": value}
