"""charts/lora-operator: monitors, alerts and dashboards, where the cluster has their kinds or they are asked for."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lora_api import names
from lora_monitoring.alerts import OPERATOR_DOWN
from tests.support.chart import CHART, NAMESPACE, Manifest, Values, of_kind, only, refusal, render
from tests.support.promtool import Case, Firing, judge

KINDS = ("ServiceMonitor", "PodMonitor", "PrometheusRule")
SWITCHES = {"ServiceMonitor": "serviceMonitor", "PodMonitor": "podMonitor", "PrometheusRule": "prometheusRule"}


def optional(objects: list[Manifest]) -> list[str]:
    """What is there of the optional kinds; dashboards count as one."""
    boards = {"dashboards" for found in objects if "grafana_dashboard" in found["metadata"].get("labels", {})}
    return sorted(boards | {found["kind"] for found in objects} & set(KINDS))


def wanted(**metrics: Any) -> Values:
    return {"metrics": metrics}


def rendered(kind: str, **fields: Any) -> Manifest:
    return only(kind, wanted(**{SWITCHES[kind]: {"enabled": True, **fields}}))


def dashboards(**fields: Any) -> list[Manifest]:
    found = of_kind("ConfigMap", wanted(dashboards={"enabled": True, **fields}))
    return [one for one in found if "-dashboard-" in one["metadata"]["name"]]


def test_a_cluster_without_the_prometheus_operator_gets_none_of_it() -> None:
    assert optional(render()) == []


def test_a_cluster_with_the_prometheus_operator_gets_all_of_it() -> None:
    assert optional(render(kinds=KINDS)) == sorted([*KINDS, "dashboards"])


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_looked_for_on_its_own(kind: str) -> None:
    assert kind in optional(render(kinds=(kind,)))


def test_all_can_be_asked_for_where_the_cluster_cannot_be_asked() -> None:
    values = wanted(**{name: {"enabled": True} for name in (*SWITCHES.values(), "dashboards")})

    assert optional(render(values)) == sorted([*KINDS, "dashboards"])


def test_all_can_be_declined() -> None:
    values = wanted(**{name: {"enabled": False} for name in (*SWITCHES.values(), "dashboards")})

    assert optional(render(values, kinds=KINDS)) == []


def test_a_switch_that_is_none_is_refused() -> None:
    assert "podMonitor" in refusal(wanted(podMonitor={"enabled": "yes"}))


def test_the_operator_is_scraped_by_its_service() -> None:
    monitor, service = rendered("ServiceMonitor")["spec"], only("Service")

    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [endpoint["port"] for endpoint in monitor["endpoints"]] == [service["spec"]["ports"][0]["name"]]
    # Its metrics name the namespace of a training themselves.
    assert monitor["endpoints"][0]["honorLabels"] is True


def test_a_monitor_without_its_service_is_refused() -> None:
    words = refusal(wanted(serviceMonitor={"enabled": True}, service={"enabled": False}))

    assert "metrics.service.enabled" in words


def test_trainings_are_scraped_in_all_namespaces_under_their_name() -> None:
    spec = rendered("PodMonitor")["spec"]
    [endpoint] = spec["podMetricsEndpoints"]

    assert spec["namespaceSelector"] == {"any": True}
    assert spec["selector"]["matchLabels"] == {
        names.LABEL_MANAGED_BY: names.MANAGER,
        names.LABEL_NAME: names.APP_NAME,
    }
    assert endpoint["port"] == names.TRAINER_PORT_NAME
    label = "__meta_kubernetes_pod_label_" + "".join(c if c.isalnum() else "_" for c in names.LABEL_TRAINING)
    assert {"sourceLabels": [label], "targetLabel": "name"} in endpoint["relabelings"]


def test_of_several_nodes_only_the_first_is_scraped() -> None:
    [endpoint] = rendered("PodMonitor")["spec"]["podMetricsEndpoints"]
    [rule] = [rule for rule in endpoint["relabelings"] if rule.get("action") == "drop"]
    label = "__meta_kubernetes_pod_label_" + re.sub(r"[^a-z]", "_", "batch.kubernetes.io/job-completion-index")

    assert rule["sourceLabels"] == [label]
    # A pod of a single node has no such label.
    assert [index for index in ("", "0", "1", "10", "63") if re.fullmatch(rule["regex"], index)] == ["1", "10", "63"]


def test_a_namespaced_release_scrapes_its_namespaces() -> None:
    values = {"watchNamespaces": ["team-a"], **wanted(podMonitor={"enabled": True})}

    assert only("PodMonitor", values)["spec"]["namespaceSelector"] == {"matchNames": ["team-a"]}


@pytest.mark.parametrize(("kind", "field"), [("ServiceMonitor", "endpoints"), ("PodMonitor", "podMetricsEndpoints")])
def test_how_often_is_the_values_business(kind: str, field: str) -> None:
    drop = [{"action": "drop", "regex": "python_.*", "sourceLabels": ["__name__"]}]

    [endpoint] = rendered(kind, interval="15s", scrapeTimeout="5s", metricRelabelings=drop)["spec"][field]

    assert (endpoint["interval"], endpoint["scrapeTimeout"]) == ("15s", "5s")
    assert (endpoint["metricRelabelings"], endpoint["path"]) == (drop, "/metrics")


@pytest.mark.parametrize("kind", KINDS)
def test_prometheus_can_choose_by_labels(kind: str) -> None:
    metadata = rendered(kind, labels={"release": "prometheus"})["metadata"]

    assert metadata["namespace"] == NAMESPACE
    assert metadata["labels"].items() >= {"release": "prometheus", "app.kubernetes.io/instance": "lora"}.items()


def test_the_alerts_are_the_generated_ones() -> None:
    generated = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())

    assert rendered("PrometheusRule")["spec"] == generated


def missed(release: str) -> Firing:
    """The alert that the operator in this namespace is down."""
    texts = {
        **OPERATOR_DOWN.to_json()["annotations"],
        "summary": f"No operator looks after LoraTrainings (operator in {release})",
    }
    return Firing({"severity": "critical", "namespace": release}, texts)


def test_a_release_that_its_own_monitor_scrapes_is_missed_for_as_long_as_it_is_away(tmp_path: Path) -> None:
    rules = tmp_path / "alerts.yaml"
    [rule] = [one for one in render(kinds=KINDS) if one["kind"] == "PrometheusRule"]
    rules.write_text(yaml.safe_dump(rule["spec"]))
    other = {'lora_operator_leader{namespace="other", job="o", pod="b"}': "1x900"}
    own = {f'lora_operator_leader{{namespace="{NAMESPACE}", job="o", pod="a"}}': "1x900"}

    gone = judge(Case("LoraOperatorDown", other, 800, (missed(NAMESPACE),)), tmp_path, rules)
    there = judge(Case("LoraOperatorDown", own, 800), tmp_path, rules)

    assert (gone, there) == ("", "")


def test_runbooks_can_lie_elsewhere() -> None:
    spec = rendered("PrometheusRule", runbookUrl="https://wiki.example.com/lora/")["spec"]
    links = [rule["annotations"]["runbook_url"] for group in spec["groups"] for rule in group["rules"]]

    assert links
    assert all(link.startswith("https://wiki.example.com/lora/") and link.endswith(".md") for link in links)


def test_every_dashboard_is_a_config_map_that_the_sidecar_finds() -> None:
    files = {path.name: json.loads(path.read_text()) for path in (CHART / "files" / "dashboards").glob("*.json")}
    found = dashboards()

    assert files
    assert {name: json.loads(text) for one in found for name, text in one["data"].items()} == files
    assert {one["metadata"]["labels"]["grafana_dashboard"] for one in found} == {"1"}
    assert {one["metadata"]["annotations"]["grafana_folder"] for one in found} == {"LoRA"}


def test_dashboards_go_where_the_sidecar_looks() -> None:
    assert {one["metadata"]["namespace"] for one in dashboards()} == {NAMESPACE}
    assert {one["metadata"]["namespace"] for one in dashboards(namespace="grafana")} == {"grafana"}


def test_dashboards_fit_into_config_maps() -> None:
    assert all(len(text.encode()) < 1_000_000 for one in dashboards() for text in one["data"].values())
