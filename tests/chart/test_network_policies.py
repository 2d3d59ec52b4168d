"""charts/lora-operator: NetworkPolicies let through what operator and trainings need, and nothing else."""

from typing import Any

import pytest

from lora_api import names
from lora_operator.manifests import build_job
from lora_operator.profiles import load_profiles
from tests.support.chart import NAMESPACE, Manifest, Values, of_kind, only, refusal
from tests.support.documents import make_training

FENCED: Values = {"networkPolicy": {"enabled": True, "namespaces": ["ml", "art"]}}
STORE = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "minio"}}}]
HUB = [{"ipBlock": {"cidr": "10.1.2.3/32"}}]


def policy(namespace: str = NAMESPACE, **changes: Any) -> Manifest:
    values = {"networkPolicy": {**FENCED["networkPolicy"], **changes}}
    [found] = [one for one in of_kind("NetworkPolicy", values) if one["metadata"]["namespace"] == namespace]
    spec: Manifest = found["spec"]
    return spec


def ports_to(spec: Manifest, peers: list[Manifest]) -> list[int]:
    [rule] = [rule for rule in spec["egress"] if rule["to"] == peers]
    return [port["port"] for port in rule["ports"]]


def selected(labels: dict[str, str], selector: Manifest) -> bool:
    return bool(selector["matchLabels"].items() <= labels.items())


@pytest.fixture(scope="module")
def training_pod() -> Manifest:
    profile = load_profiles("default: {image: a}")["default"]
    template: Manifest = build_job(make_training(), profile, attempt=1)["spec"]["template"]
    return template


def test_there_are_none_unless_asked_for() -> None:
    assert of_kind("NetworkPolicy") == []


def test_the_operator_and_every_named_namespace_get_one_each() -> None:
    places = [found["metadata"]["namespace"] for found in of_kind("NetworkPolicy", FENCED)]

    assert sorted(places) == ["art", NAMESPACE, "ml"]


def test_namespaces_default_to_those_that_are_watched() -> None:
    values = {"watchNamespaces": ["team-a"], "networkPolicy": {"enabled": True}}

    places = [found["metadata"]["namespace"] for found in of_kind("NetworkPolicy", values)]

    assert sorted(places) == [NAMESPACE, "team-a"]


def test_a_fence_around_nothing_is_refused() -> None:
    assert "networkPolicy.namespaces" in refusal({"networkPolicy": {"enabled": True}})


def test_a_destination_that_would_be_everybody_is_refused() -> None:
    assert "objectStore" in refusal({"networkPolicy": {"objectStore": {"to": []}}})


def test_policies_hold_for_the_pods_that_the_operator_makes(training_pod: Manifest) -> None:
    labels = training_pod["metadata"]["labels"]

    assert selected(labels, policy("ml")["podSelector"])
    assert not selected(labels, policy()["podSelector"])


def test_the_operators_policy_holds_for_its_pods() -> None:
    labels = only("Deployment")["spec"]["template"]["metadata"]["labels"]

    assert selected(labels, policy()["podSelector"])
    assert not selected(labels, policy("ml")["podSelector"])


def test_everything_not_named_is_closed_both_ways() -> None:
    assert policy()["policyTypes"] == policy("ml")["policyTypes"] == ["Ingress", "Egress"]


def test_the_operator_reaches_the_port_of_trainings(training_pod: Manifest) -> None:
    [rule] = [rule for rule in policy()["egress"] if "podSelector" in rule["to"][0]]
    [container] = training_pod["spec"]["containers"]

    assert selected(training_pod["metadata"]["labels"], rule["to"][0]["podSelector"])
    assert rule["to"][0]["namespaceSelector"] == {}
    assert [port["port"] for port in rule["ports"]] == [names.TRAINER_PORT]
    assert container["ports"][0]["containerPort"] == names.TRAINER_PORT


def test_a_namespaced_operator_reaches_its_namespaces_only() -> None:
    values = {"watchNamespaces": ["team-a"], "networkPolicy": {"enabled": True}}
    [operator] = [one for one in of_kind("NetworkPolicy", values) if one["metadata"]["namespace"] == NAMESPACE]
    [rule] = [rule for rule in operator["spec"]["egress"] if "podSelector" in rule["to"][0]]

    [where] = rule["to"][0]["namespaceSelector"]["matchExpressions"]
    assert where == {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["team-a"]}


def test_trainings_let_operator_and_prometheus_in_and_each_other(training_pod: Manifest) -> None:
    scraped, gang = policy("ml")["ingress"]
    operator, prometheus = scraped["from"]
    [container] = training_pod["spec"]["containers"]

    assert operator["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": NAMESPACE}
    assert operator["podSelector"] == only("Deployment")["spec"]["selector"]
    assert prometheus == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    assert [port["port"] for port in scraped["ports"]] == [container["ports"][0]["name"]]
    # Pods of a training that spans nodes choose their ports.
    assert gang == {"from": [{"podSelector": policy("ml")["podSelector"]}]}


def test_trainings_reach_store_and_hub_on_their_ports() -> None:
    spec = policy("ml", objectStore={"to": STORE, "ports": [9000]}, hub={"to": HUB})

    assert ports_to(spec, STORE) == [9000]
    assert ports_to(spec, HUB) == [443]


def test_without_a_hub_trainings_do_not_reach_one() -> None:
    spec = policy("ml", hub={"enabled": False, "to": HUB})

    assert [rule for rule in spec["egress"] if rule["to"] == HUB] == []


def test_credentials_of_the_machine_are_out_of_reach() -> None:
    blocks = [peer["ipBlock"] for rule in policy("ml")["egress"] for peer in rule["to"] if "ipBlock" in peer]

    wide = [block for block in blocks if block["cidr"] == "0.0.0.0/0"]
    assert wide
    assert all("169.254.0.0/16" in block["except"] for block in wide)


def test_without_prometheus_nobody_reads_the_operators_metrics() -> None:
    assert policy(prometheus=[])["ingress"] == []


def test_names_are_looked_up_by_udp_and_tcp() -> None:
    for spec in (policy(), policy("ml")):
        assert [(port["protocol"], port["port"]) for port in spec["egress"][0]["ports"]] == [("UDP", 53), ("TCP", 53)]


def test_further_rules_are_added() -> None:
    rule = {"to": [{"ipBlock": {"cidr": "169.254.170.23/32"}}], "ports": [{"port": 80}]}

    assert rule in policy("ml", extraEgress=[rule])["egress"]
