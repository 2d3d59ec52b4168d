"""The scrape configuration in docs/observability.md is one that Prometheus takes."""

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.support.chart import only
from tests.support.prometheus import program
from tests.support.promtool import ALERTS

PAGE = Path(__file__).parents[2] / "docs" / "observability.md"


def configuration() -> dict[str, Any]:
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    (found,) = [yaml.safe_load(block) for block in blocks if "scrape_configs" in block]
    return dict(found)


def test_promtool_accepts_it(tmp_path: Path) -> None:
    content = configuration()
    for job in content["scrape_configs"]:
        # Debian builds Prometheus without the discovery of Kubernetes.
        assert job.pop("kubernetes_sd_configs")
        job["static_configs"] = [{"targets": ["127.0.0.1:9"]}]
    file = tmp_path / "prometheus.yaml"
    file.write_text(yaml.safe_dump({**content, "rule_files": [str(ALERTS)]}))

    done = subprocess.run(
        [program("promtool"), "check", "config", str(file)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_it_finds_the_charts_service_and_gives_pods_the_labels_that_the_chart_gives_them() -> None:
    operator, trainings = configuration()["scrape_configs"]
    service, monitor = only("Service"), only("PodMonitor", {"metrics": {"podMonitor": {"enabled": True}}})

    kept = {rule["source_labels"][0]: rule["regex"] for rule in operator["relabel_configs"] if "regex" in rule}
    label = "app.kubernetes.io/name"
    assert (
        kept[f"__meta_kubernetes_service_label_{re.sub(r'[^a-z]', '_', label)}"] == service["metadata"]["labels"][label]
    )
    assert kept["__meta_kubernetes_endpoint_port_name"] in {port["name"] for port in service["spec"]["ports"]}
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    given = {(rule["sourceLabels"][0], rule.get("targetLabel")) for rule in endpoint["relabelings"]}
    assert given <= {(rule["source_labels"][0], rule.get("target_label")) for rule in trainings["relabel_configs"]}
    assert operator["honor_labels"]


def test_pods_that_have_ended_are_not_asked_as_their_address_may_be_of_another_training() -> None:
    _, trainings = configuration()["scrape_configs"]

    dropped = {
        rule["source_labels"][0]: rule["regex"] for rule in trainings["relabel_configs"] if rule.get("action") == "drop"
    }
    assert dropped["__meta_kubernetes_pod_phase"] == "Succeeded|Failed"
