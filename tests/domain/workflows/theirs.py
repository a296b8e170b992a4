"""Runs cases on the engine of Dify, the package graphon: cases as JSON lines on the standard input, outcomes on the
output. For an environment of its own with Python 3.12; nothing of it is used by the product."""

import contextlib
import io
import json
import logging
import sys
import threading
import time

import jinja2
import yaml
from graphon.dsl import importer, inspect, node_factory
from graphon.dsl.code_runtime import SandboxCodeExecutionError, SandboxCodeExecutor
from graphon.dsl.entities import DslCodeSettings, DslCredentials
from graphon.engine import Engine
from graphon.engine.container_handler import IterationContainerHandler, LoopContainerHandler
from graphon.engine.filter import EngineEventFilterContext, ResponseStreamFilter, filter_engine_events
from graphon.engine.layer.builtin.execution_limits import ExecutionLimitsLayer
from graphon.enums import BuiltinNodeTypes
from graphon.graph.graph import Graph
from graphon.model_runtime.entities import llm_entities, message_entities
from graphon.model_runtime.entities.common_entities import I18nObject
from graphon.model_runtime.entities.model_entities import AIModelEntity, FetchFrom, ModelType
from graphon.nodes.code.code_node import CodeNode
from graphon.nodes.code.entities import CodeNodeData
from graphon.nodes.llm import LLMNode, LLMNodeData
from graphon.nodes.template_transform.entities import TemplateTransformNodeData
from graphon.nodes.template_transform.template_transform_node import TemplateTransformNode
from graphon.runtime.init_params import InitParams
from graphon.runtime.runtime_state import RuntimeState
from graphon.runtime.variable_pool import VariablePool
from graphon.template_rendering import TemplateRenderError
from graphon.variables.factory import build_segment_with_type, segment_to_variable
from graphon.variables.segments import Segment
from graphon.variables.types import SegmentType

STATUSES = {
    "GraphRunSucceededEvent": "succeeded",
    "GraphRunPartialSucceededEvent": "partial-succeeded",
    "GraphRunFailedEvent": "failed",
    "GraphRunAbortedEvent": "stopped",
    "GraphRunPausedEvent": "paused",
}
RACE = "changed size during iteration"
"""The words of an error that comes of threads of the engine, once in a thousand graphs."""

ENDS = {
    "NodeRunSucceededEvent": "succeeded",
    "NodeRunFailedEvent": "failed",
    "NodeRunExceptionEvent": "exception",
}


class Sandbox:
    """Runs the program that the engine makes of a code node: here, since the tests wrote the code."""

    lock = threading.Lock()

    def run(self, program):
        printed = io.StringIO()
        with self.lock, contextlib.redirect_stdout(printed):
            try:
                exec(program.code, {"__name__": "__main__"})
            except Exception as error:
                raise SandboxCodeExecutionError(f"{type(error).__name__}: {error}") from error
        return printed.getvalue()


class Jinja:
    def render_template(self, template, variables):
        try:
            return jinja2.Environment().from_string(template).render(**variables)
        except Exception as error:
            raise TemplateRenderError(str(error)) from error


class Model:
    """Says `ok`."""

    provider, stop, parameters = "p", None, {}

    def __init__(self, name):
        self.model_name = name

    def get_model_schema(self):
        return AIModelEntity(
            model=self.model_name,
            label=I18nObject(en_US=self.model_name),
            model_type=ModelType.LLM,
            fetch_from=FetchFrom.PREDEFINED_MODEL,
            features=[],
            model_properties={"mode": "chat", "context_size": 4000},
            parameter_rules=[],
        )

    def get_llm_num_tokens(self, prompt):
        return 1

    def invoke_llm(self, *, prompt_messages, model_parameters, tools, stop, stream):
        delta = llm_entities.LLMResultChunkDelta(
            index=0,
            message=message_entities.AssistantPromptMessage(content="ok"),
            finish_reason="stop",
            usage=llm_entities.LLMUsage.empty_usage(),
        )
        yield llm_entities.LLMResultChunk(model=self.model_name, delta=delta)


class Serializer:
    def serialize(self, *, model_mode, prompt_messages):
        return []


class Factory(node_factory.SlimDslNodeFactory):
    """Nodes with these collaborators."""

    def _resolve_slim_llm_settings(self, *, node_id, data, node_type_label):
        return data, "", "", {}

    def _made(self, kind, data, request, **collaborators):
        return kind(
            node_id=request.node_id,
            data=data.model_validate(request.data_payload),
            init_params=self.init_params,
            runtime_state=self.runtime_state,
            **collaborators,
        )

    def _code(self, request):
        executor = SandboxCodeExecutor(DslCodeSettings())
        executor._client = Sandbox()
        limits = node_factory._code_limits(DslCodeSettings())
        return self._made(CodeNode, CodeNodeData, request, code_executor=executor, code_limits=limits)

    def _template(self, request):
        return self._made(TemplateTransformNode, TemplateTransformNodeData, request, jinja2_template_renderer=Jinja())

    def _llm(self, request):
        return self._made(
            LLMNode,
            LLMNodeData,
            request,
            model_instance=Model(request.data_payload["model"]["name"]),
            llm_file_saver=None,
            prompt_message_serializer=Serializer(),
            jinja2_template_renderer=Jinja(),
            memory=None,
            default_query_selector=("sys", "query"),
        )

    NODE_BUILDERS = {  # noqa: RUF012
        **node_factory.SlimDslNodeFactory.NODE_BUILDERS,
        BuiltinNodeTypes.CODE: _code,
        BuiltinNodeTypes.TEMPLATE_TRANSFORM: _template,
        BuiltinNodeTypes.LLM: _llm,
    }


def load(case):
    config = inspect(yaml.safe_dump(case["graph"], allow_unicode=True)).document.graph_config
    root = importer._select_root_node_id(config)
    pool = VariablePool()
    for name, given in {"user_id": "user", "query": "", "files": []}.items():
        pool.add(("sys", name), given)
    for variable in case["graph"]["workflow"]["conversation_variables"]:
        selector = ["conversation", variable["name"]]
        segment = build_segment_with_type(SegmentType(variable["value_type"]), variable["value"])
        pool.add(selector, segment_to_variable(segment=segment, selector=selector, name=variable["name"]))
    for name, given in case["inputs"].items():
        pool.add((root, name), given)
    state = RuntimeState(variable_pool=pool, start_at=time.time(), workflow_id="workflow")
    parameters = InitParams(workflow_id="workflow", graph_config=config, run_context={}, call_depth=0)
    factory = Factory(
        graph_config=config,
        init_params=parameters,
        runtime_state=state,
        credentials=DslCredentials(),
        dependencies=[],
    )
    graph = Graph.init(graph_config=config, node_factory=factory, root_node_id=root)
    containers = [IterationContainerHandler, LoopContainerHandler]
    engine = Engine(graph=graph, runtime_state=state, workers=5, container_handler_factories=containers)
    engine.add_layer(ExecutionLimitsLayer(max_steps=500, max_time=1200))
    return engine, pool


def plain(value):
    if isinstance(value, Segment):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def run(case):
    """The outcome of a case: status, outputs, statuses of nodes, variables of the conversation."""
    engine, pool = load(case)
    got = {"status": "no end", "outputs": {}}
    nodes = {}
    context = EngineEventFilterContext.from_engine(engine)
    try:
        for event in filter_engine_events(engine.run(), context=context, filters=[ResponseStreamFilter()]):
            kind = type(event).__name__
            if kind in ENDS:
                nodes.setdefault(event.node_id, []).append(ENDS[kind])
            elif kind in STATUSES:
                got.update(status=STATUSES[kind], outputs=plain(getattr(event, "outputs", {})))
    except RuntimeError as error:  # how the engine ends some runs that fail
        got.update(status="failed", error=str(error))
    got["nodes"] = {id: sorted(statuses) for id, statuses in nodes.items()}
    variables = case["graph"]["workflow"]["conversation_variables"]
    got["conversation"] = {each["name"]: plain(pool.get(["conversation", each["name"]])) for each in variables}
    return got


def main():
    logging.disable(logging.CRITICAL)
    for line in sys.stdin:
        case = json.loads(line)
        try:
            got = run(case)
            if RACE in got.get("error", ""):
                got = run(case)
        except Exception as error:
            got = {"status": "refused", "outputs": {}, "error": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(got), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
