"""Alert rules and dashboard: they parse, and what they name is what the metrics page has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import promql_parser
import pytest
import yaml
from nats.aio.client import Client as NatsClient

from adapters.telemetry.metrics.page import Metrics
from adapters.telemetry.metrics.state import FIGURES
from ops import docs

MONITORING = Path(__file__).resolve().parents[2] / "ops" / "deploy" / "monitoring"
RULES = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
DURATION = re.compile(r"\d+[smhd]")


def exposed() -> dict[str, set[str]]:
    """Every name that a query can have, with its labels."""
    metrics = Metrics(NatsClient(), cast("Any", None))
    found = {name: set(figure.labels) for name, figure in FIGURES.items()}
    calls = metrics.calls
    for histogram in (calls.tokens, calls.duration, calls.first_chunk, calls.per_chunk, calls.tools):
        labels = set(histogram._labelnames)
        found |= {f"{histogram._name}_{kind}": labels for kind in ("sum", "count")}
        found[f"{histogram._name}_bucket"] = labels | {"le"}
    for counter in (calls.ended, calls.tools_ended):
        found[f"{counter._name}_total"] = set(counter._labelnames)
    return found


EXPOSED = exposed()


def selectors(expression: promql_parser.Expr) -> Iterator[promql_parser.VectorSelector]:
    found: list[promql_parser.VectorSelector] = []

    def look(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(expression, look)
    yield from found


def check(text: str) -> set[str]:
    """The labels of what an expression selects, once it is sure that all of it exists."""
    expression = promql_parser.parse(text.replace("$__rate_interval", "5m"))
    chosen = list(selectors(expression))
    assert chosen, text
    labels: set[str] = set()
    for selector in chosen:
        assert selector.name in EXPOSED, f"{selector.name} is no metric of ours"
        assert {matcher.name for matcher in selector.matchers.matchers} <= EXPOSED[selector.name], text
        labels |= EXPOSED[selector.name]
    grouped = {name.strip() for by in re.findall(r"by \(([^)]*)\)", text) for name in by.split(",")}
    assert grouped <= labels, text
    return labels


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_is_about_metrics_that_there_are(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"Headrace[A-Za-z]+", rule["alert"])
    assert DURATION.fullmatch(rule.get("for", "0s"))
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert set(rule["annotations"]) == {"summary", "description"}
    labels = check(rule["expr"])
    named = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
    assert named <= labels


def test_the_alerts_watch_all_that_may_go_wrong() -> None:
    text = " ".join(rule["expr"] for rule in RULES)
    for name in (
        "up",
        "queue_waiting",
        "projector_lag_seconds",
        "export_lag_seconds",
        "dead_letters",
        "quarantined_messages",
        "unknown_calls",
    ):
        assert f"headrace_{name}" in text
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("panel", DASHBOARD["panels"], ids=lambda panel: panel["title"])
def test_every_panel_shows_metrics_that_there_are(panel: dict[str, Any]) -> None:
    assert panel["targets"]
    for target in panel["targets"]:
        labels = check(target["expr"])
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels
        assert target["datasource"]["uid"] == "${source}"


def test_the_panels_lie_side_by_side() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert all(x < 24 for x, _ in cells)
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_every_metric_is_documented() -> None:
    text = (docs.DOCS / "metrics.md").read_text()
    documented = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    histograms = {name.removesuffix("_bucket") for name in EXPOSED if name.endswith("_bucket")}
    others = {name for name in EXPOSED if name.rpartition("_")[0] not in histograms}
    assert documented == histograms | others
    for name, figure in FIGURES.items():
        row = re.search(rf"^\| `{name}` \|(.*)\| (.*) \|$", text, re.MULTILINE)
        assert row
        assert set(re.findall(r"`(\w+)`", row[1])) == set(figure.labels)
        assert row[2] == figure.meaning
