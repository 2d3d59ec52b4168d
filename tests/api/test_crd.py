"""lora_api.crd: what a real API server demands, and that CEL and Python judge alike."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from lora_api import InvalidTraining, crd, parse_training
from lora_devcluster.cel import compile_tree, rule_faults
from lora_devcluster.schema import unknown_fields, violations, with_defaults
from tests.support.documents import make_document

SCHEMA = crd.build_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def walk(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from walk(schema[key], f"{path}[]")


NODES = list(walk(SCHEMA))


def test_the_file_is_as_generated() -> None:
    assert crd.main(["--check"]) == 0, f"run: {crd.COMMAND}"


def test_drift_is_noticed(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stale = tmp_path / "loratrainings.yaml"
    stale.write_text("something else")
    monkeypatch.setattr(crd, "CRD_PATH", stale)

    assert crd.main(["--check"]) == 1
    assert crd.COMMAND in capsys.readouterr().err


def test_every_node_has_a_type() -> None:
    assert [path for path, node in NODES if "type" not in node and not node.get("x-kubernetes-int-or-string")] == []


def test_every_field_is_explained() -> None:
    fields = [(path, node) for path, node in NODES if path.startswith((".spec.", ".status.")) and path[-1] != "]"]

    assert [path for path, node in fields if not node.get("description")] == []


def test_every_string_list_and_map_of_the_spec_is_bounded() -> None:
    bound = {"string": "maxLength", "array": "maxItems"}
    unbounded = [
        path
        for path, node in NODES
        if path.startswith(".spec")
        and not node.get("enum")
        and (
            (node.get("type") in bound and bound[node["type"]] not in node)
            or ("additionalProperties" in node and "maxProperties" not in node)
        )
    ]

    assert unbounded == []


def test_nothing_of_json_schema_that_a_structural_schema_forbids_is_left() -> None:
    forbidden = {"$ref", "$defs", "title", "oneOf", "allOf", "const", "exclusiveMinimum_", "nullable"}
    assert [path for path, node in NODES if forbidden & node.keys()] == []
    assert [path for path, node in NODES if node.get("additionalProperties") is False] == []
    assert [p for p, n in NODES if not isinstance(n.get("exclusiveMinimum", True), bool)] == []


def test_rules_stay_within_one_line_and_have_a_message() -> None:
    rules = [rule for _, node in NODES for rule in node.get("x-kubernetes-validations", ())]

    assert len(rules) > 60
    assert all(rule["message"] and "\n" not in rule["message"] + rule["rule"] for rule in rules)


TREE = compile_tree(SCHEMA)


def refusals(document: dict[str, Any], old: dict[str, Any] | None = None) -> list[str]:
    """What a server says about a document: unknown fields, schema, then rules, after its defaults."""
    filled = with_defaults(SCHEMA, copy.deepcopy(document))
    before = with_defaults(SCHEMA, copy.deepcopy(old)) if old else None
    unknown = [f"unknown field {path}" for path in unknown_fields(SCHEMA, filled) if not path.startswith("metadata")]
    faults = [f"{cause.field}: {cause.message}" for cause in violations(SCHEMA, filled)]
    return unknown + faults or [f"{cause.field}: {cause.message}" for cause in rule_faults(TREE, filled, before)]


def python_refuses(document: dict[str, Any]) -> bool:
    try:
        parse_training(document)
    except InvalidTraining:
        return True
    return False


VALID = {
    "minimal": (),
    "seed case": (
        ("dataset.resolution", 768),
        ("dataset.captions", {"maxTokens": 150}),
        ("network", {"rank": 128, "alpha": 128}),
        ("optimizer", {"name": "adamw8bit", "learningRate": 1e-4, "textEncoderLearningRate": 5e-5}),
        ("training", {"epochs": 10, "precision": "bf16", "seed": 1234}),
        ("baseModel.clipSkip", 2),
    ),
    "whole numbers where rates stand": (("optimizer.learningRate", 1), ("network.alpha", 8)),
    "resolution as text": (("dataset.resolution", "768x512"),),
    "hub model with token": (
        ("baseModel", {"uri": "hf://a/b@main", "tokenSecretRef": {"name": "hf", "key": "token"}}),
    ),
    "pod settings": (
        (
            "pod",
            {"labels": {"team": "art"}, "env": [{"name": "A", "value": "1"}], "resources": {"limits": {"cpu": "4"}}},
        ),
        ("scheduling", {"tolerations": [{"key": "gpu", "operator": "Exists"}], "affinity": {"nodeAffinity": {}}}),
    ),
    "defaults said aloud": (
        ("dataset.augmentation", {"flip": False, "color": False, "randomCrop": False}),
        ("dataset.subsets", []),
        ("training.loss", {"type": "l2", "minTimestep": 0}),
        ("output.formats", ["kohya"]),
        ("checkpoints", {"keepLast": 2, "saveState": True}),
    ),
    "every kind of base model": (
        (
            "baseModel",
            {
                "uri": "s3://models/sdxl.safetensors",
                "family": "sdxl",
                "vaeUri": "s3://models/vae",
                "prediction": "epsilon",
                "adapters": [{"uri": "s3://models/a.safetensors", "weight": -1}, {"uri": "s3://models/b"}],
            },
        ),
        ("optimizer.textEncoder2LearningRate", 1e-5),
        ("network.blocks", [{"name": "M02", "rank": 0}, {"name": "OUT08", "learningRateFactor": 0.5}]),
    ),
    "an ordinary sd15 in blocks": (
        ("baseModel.family", "sd15"),
        ("network", {"type": "locon", "convAlpha": 1, "blocks": [{"name": "IN11", "convRank": 4, "convAlpha": 2}]}),
    ),
    "every kind of network": (
        (
            "network",
            {"type": "lokr", "convRank": 4, "convAlpha": 1, "lokrFactor": 8, "rankDropout": 0.1, "textEncoder": False},
        ),
    ),
    "a limited network of some start": (
        ("network", {"weightNormLimit": 1, "dropout": 0.1, "initialUri": "s3://lora/a.safetensors", "unet": False}),
        ("optimizer.unetLearningRate", None),
    ),
    "LoRA+ on one part": (
        ("network.textEncoder", False),
        ("optimizer", {"name": "lion", "learningRate": 0, "unetLearningRate": 1e-5, "loraPlus": {"ratio": 16}}),
    ),
    "prodigy": (
        ("optimizer", {"name": "prodigy", "learningRate": 1, "textEncoderLearningRate": 0}),
        ("network.blocks", [{"name": "IN01", "learningRateFactor": 0}]),
    ),
    "schedule-free": (
        ("optimizer", {"name": "schedulefree", "arguments": {"warmup_steps": "100", "betas": "(0.9, 0.99)"}}),
        ("parallelism.gpusPerNode", 0),
    ),
    "paged on a GPU": (("optimizer", {"name": "pagedlion8bit", "schedule": {"name": "inverse_sqrt", "timescale": 9}}),),
    "dadaptsgd": (("optimizer", {"name": "dadaptsgd", "learningRate": 1, "schedule": {"warmupSteps": 0}}),),
    "steps of a schedule within the run": (
        ("training.maxSteps", 100),
        (
            "optimizer.schedule",
            {"name": "warmup_stable_decay", "warmupSteps": 40, "decaySteps": 60, "minRateFraction": 0.1},
        ),
        ("training.ema", {"everySteps": 100}),
        ("dataset.captions.tokenWarmup", {"steps": 100}),
    ),
    "shares of a schedule": (
        ("optimizer.schedule", {"name": "warmup_stable_decay", "warmupFraction": 0.5, "decayFraction": 0.5}),
    ),
    "pieces of a schedule": (
        ("training.maxSteps", 100),
        (
            "optimizer.schedule",
            {"name": "piecewise_constant", "pieces": [{"fromStep": 99, "factor": 0}, {"fromStep": 5, "factor": 2}]},
        ),
    ),
    "subsets with overrides": (
        ("dataset.uri", None),
        (
            "dataset.subsets",
            [
                {"uri": "s3://lora/a", "repeats": 10, "augmentation": {"randomCrop": True, "flip": True}},
                {"uri": "s3://lora/b", "augmentation": {"randomCrop": False}, "captions": {"separator": ";"}},
                {"uri": "s3://lora/reg", "isRegularization": True, "classTokens": "girl"},
            ],
        ),
        ("dataset.augmentation", {"color": True}),
        ("dataset.regularization", {"lossWeight": 0.5, "target": "BaseModel"}),
        ("dataset.latentVariants", 4),
        ("dataset.latentCache", "Store"),
        ("dataset.cacheUri", "s3://lora/cache"),
    ),
    "captions with everything": (
        (
            "dataset.captions",
            {
                "extension": ".caption",
                "secondarySeparator": ";;;",
                "keepTokensSeparator": "|||",
                "tokenWarmup": {"fraction": 0.1, "minTags": 3},
                "wildcards": True,
                "weighted": True,
            },
        ),
        ("dataset.augmentation", {"faceCropRange": {"minimum": 1.5, "maximum": 3}}),
        ("dataset.latentCache", "None"),
        ("dataset.regularization", {"uri": "s3://lora/reg", "target": "BaseModel"}),
        ("dataset.mask", "Files"),
    ),
    "latents in the store": (("dataset.latentCache", "Store"), ("output.formats", ["diffusers", "kohya"])),
    "a loss for epsilon": (
        ("baseModel.prediction", "epsilon"),
        (
            "training.loss",
            {
                "type": "huber",
                "huberC": 0.2,
                "huberSchedule": "constant",
                "huberScale": 2,
                "noiseOffset": 0.1,
                "noiseOffsetRandomStrength": True,
                "adaptiveNoiseScale": -0.1,
                "multiresNoiseIterations": 6,
                "multiresNoiseDiscount": 0.3,
                "ipNoiseGamma": 0.1,
                "ipNoiseGammaRandomStrength": True,
                "vPredictionLikeLoss": 0.5,
                "minSnrGamma": 5,
                "minTimestep": 10,
                "maxTimestep": 11,
            },
        ),
    ),
    "a loss for v": (
        ("baseModel.prediction", "v_prediction"),
        (
            "training.loss",
            {"zeroTerminalSnr": True, "scaleVPredictionLikeNoise": True, "debiasedEstimation": True},
        ),
        ("training.precision", "bf16"),
        ("training.fullPrecision", True),
    ),
    "stores": (
        (
            "storage",
            {"endpoint": "https://10.0.0.1:9000", "addressing": "Path", "caBundleRef": {"name": "ca", "key": "ca.crt"}},
        ),
    ),
    "a host for every bucket": (("storage", {"endpoint": "http://s3.example.com", "addressing": "Virtual"}),),
    "every taint": (
        (
            "scheduling.tolerations",
            [
                {"operator": "Exists"},
                {"key": "a", "value": "b", "effect": "NoSchedule"},
                {"key": "c", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60},
            ],
        ),
    ),
    "a store for every section": (
        ("baseModel.storage", {"anonymous": True, "region": "eu-west-1"}),
        ("dataset.storage", {"endpoint": "https://10.0.0.1:9000", "credentialsSecretRef": {"name": "data"}}),
        ("output.storage", {"endpoint": "http://s3.example.com"}),
    ),
    "a queue": (
        (
            "scheduling",
            {"queueName": "gpus", "queuePriorityClass": "high", "priorityClass": "p", "startDeadlineSeconds": 60},
        ),
    ),
    "several nodes": (
        ("parallelism", {"nodes": 64, "gpusPerNode": 16}),
        ("scheduling", {"queueName": "gpus", "queueTopology": {"required": "cloud.provider.com/rack"}}),
    ),
    "several nodes anywhere": (("scheduling", {"queueName": "q", "queueTopology": {"unconstrained": True}}),),
    "states when it suits": (
        ("checkpoints", {"everySteps": 100, "everySeconds": 30, "keepLast": 1}),
        ("resume", {"onChange": "Continue"}),
    ),
    "no states": (("checkpoints", {"saveState": False, "everySeconds": 60}), ("resume", {"onChange": "Refuse"})),
    "limits and retries": (
        ("limits", {"activeSeconds": 3600, "stallSeconds": 60}),
        ("retry", {"maxFailures": 0, "onOutOfMemory": "Ladder"}),
        ("pod", {"cacheVolumeClaim": "cache", "annotations": {"kueue.x-k8s.io/podset-required-topology": "rack"}}),
    ),
    "labels in every form": (
        ("pod.labels", {"team": "", "a.example/Team_1": "My.team-1", "x" * 63: "x" * 63}),
        ("pod.annotations", {"Example.com/note": "two words", "b": ""}),
        ("scheduling.nodeSelector", {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}),
        ("scheduling.tolerations", [{"key": "nvidia.com/gpu", "operator": "Exists"}, {"key": "a", "value": ""}]),
    ),
    "resources in every unit": (
        (
            "pod.resources",
            {
                "requests": {
                    "cpu": "500m",
                    "memory": "16G",
                    "hugepages-2Mi": "4Mi",
                    "rdma/hca": "1",
                    "fpga.io/a": "1k",
                },
                "limits": {
                    "cpu": "0.5",
                    "memory": "16Gi",
                    "hugepages-2Mi": "4096Ki",
                    "rdma/hca": "1",
                    "fpga.io/a": "1e3",
                },
            },
        ),
    ),
    "bucket sides at the resolution": (("dataset.buckets", {"minPx": 512, "maxPx": 512, "stepPx": 512}),),
    "no buckets": (("dataset.resolution", 64), ("dataset.buckets", {"enabled": False, "stepPx": 512})),
}
INVALID: dict[str, tuple[tuple[str, Any], ...]] = {
    "misspelt field": (("network.rnak", 4),),
    "wrong type": (("training.epochs", "10"),),
    "number for integer": (("network.rank", 1.5),),
    "out of bounds": (("network.rank", 5000),),
    "alpha of zero": (("network.alpha", 0),),
    "not one of": (("training.precision", "int8"),),
    "no source": (("dataset.uri", None),),
    "two sources": (("dataset.subsets", [{"uri": "s3://b/x"}]),),
    "scheme": (("dataset.uri", "ftp://a/b"),),
    "output to the hub": (("output.uri", "hf://a/b"),),
    "dots": (("dataset.uri", "s3://b/a/../c"),),
    "output inside dataset": (("output.uri", "s3://lora/data/runs"),),
    "output inside dataset, slash": (("dataset.uri", "s3://lora/data/"), ("output.uri", "s3://lora/data/runs")),
    "resolution": (("dataset.resolution", 500),),
    "resolution text": (("dataset.resolution", "512 x 512"),),
    "bucket bounds": (("dataset.buckets", {"minPx": 1024, "maxPx": 512}),),
    "bucket step": (("dataset.buckets", {"minPx": 320, "stepPx": 96}),),
    "bucket above resolution": (("dataset.buckets", {"minPx": 768}),),
    "warm-up": (("training.maxSteps", 10), ("optimizer.schedule", {"warmupSteps": 10})),
    "rate without text encoder": (
        ("network.textEncoder", False),
        ("optimizer.textEncoderLearningRate", 1e-4),
    ),
    "token without hub": (("baseModel.tokenSecretRef", {"name": "hf", "key": "t"}),),
    "anonymous with Secret": (("storage", {"anonymous": True, "credentialsSecretRef": {"name": "s3"}}),),
    "reserved label": (("pod.labels", {"app.kubernetes.io/name": "x"}),),
    "environment without value": (("pod.env", [{"name": "A"}]),),
    "environment of ours": (("pod.env", [{"name": "LORA_X", "value": "1"}]),),
    "rank in no queue": (("scheduling", {"queuePriorityClass": "high"}),),
    "states at steps but no states": (("checkpoints", {"saveState": False, "everySteps": 10}),),
    "answer to a change": (("resume", {"onChange": "Restart"}),),
    "annotation of ours": (("pod.annotations", {"lora-operator.io/training": "{}"}),),
    "more nodes than are tried": (("parallelism", {"nodes": 65}),),
    "topology in no queue": (("scheduling", {"queueTopology": {"preferred": "rack"}}),),
    "two topologies": (("scheduling", {"queueName": "q", "queueTopology": {"preferred": "a", "unconstrained": True}}),),
    "no topology": (("scheduling", {"queueName": "q", "queueTopology": {}}),),
    "rank of torchrun": (("pod.env", [{"name": "RANK", "value": "0"}]),),
}


def without_nulls(document: dict[str, Any]) -> dict[str, Any]:
    spec = document["spec"]
    for part in spec.values():
        for name in [name for name, value in part.items() if value is None]:
            del part[name]
    return document


@pytest.mark.parametrize("changes", VALID.values(), ids=VALID.keys())
def test_server_and_python_accept_the_same(changes: tuple[tuple[str, Any], ...]) -> None:
    document = without_nulls(make_document(*changes))

    assert refusals(document) == []
    parse_training(document)


@pytest.mark.parametrize("changes", INVALID.values(), ids=INVALID.keys())
def test_server_and_python_refuse_the_same(changes: tuple[tuple[str, Any], ...]) -> None:
    document = without_nulls(make_document(*changes))

    assert refusals(document) != []
    assert python_refuses(document)


@pytest.mark.parametrize(("name", "said"), [("a" * 53, "at most 52"), ("1st", "starting with a letter")])
def test_names_are_judged_by_the_server_too(name: str, said: str) -> None:
    assert said in " ".join(refusals(make_document(name=name)))


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (("network.rank", 4), "network"),
        (("dataset.resolution", 768), "dataset"),
        (("training.seed", 2), "training"),
        (("output.comment", "x"), "output"),
        (("profile", "big"), "profile"),
        (("scheduling", {"nodeSelector": {"gpu": "a100"}}), "scheduling.nodeSelector"),
        (("pod.image", "other"), "pod"),
        (("resume.onChange", "Continue"), "resume"),
        (("checkpoints.everySteps", 5), "checkpoints"),
        (("scheduling.queueName", "q"), "scheduling.queueName"),
    ],
    ids=lambda value: str(value[0]),
)
def test_what_changes_the_result_cannot_change(change: tuple[str, Any], path: str) -> None:
    said = refusals(make_document(change), old=make_document())

    assert [f"spec.{path} is immutable; create a new LoraTraining" in text for text in said] == [True]


@pytest.mark.parametrize(
    "change",
    [
        ("suspend", True),
        ("cancel", True),
        ("limits", {"activeSeconds": 60, "stallSeconds": 60}),
        ("retry", {"maxFailures": 0, "onOutOfMemory": "Ladder"}),
        ("scheduling", {"priorityClass": "low"}),
        ("ttlSecondsAfterFinished", 60),
    ],
    ids=lambda change: change[0],
)
def test_what_only_steers_the_run_can_change(change: tuple[str, Any]) -> None:
    assert refusals(make_document(change), old=make_document()) == []


@pytest.mark.parametrize("after", [(("cancel", False),), ()], ids=["false", "removed"])
def test_a_cancellation_cannot_be_taken_back(after: tuple[tuple[str, Any], ...]) -> None:
    said = refusals(make_document(*after), old=make_document(("cancel", True)))

    assert said == ["spec.cancel: Invalid value: false: cannot be taken back; create a new LoraTraining"]


def with_evaluation(wish: dict[str, Any] | None, *ends: tuple[str, str]) -> dict[str, Any]:
    """A training that asks for this evaluation, and has these conditions."""
    conditions = [
        {"type": kind, "status": status, "reason": "R", "lastTransitionTime": "2026-11-22T12:00:00Z"}
        for kind, status in ends
    ]
    document = make_document(*([("evaluation", wish)] if wish is not None else []))
    return {**document, "status": {"conditions": conditions}} if ends else document


EVALUATIONS = {
    "added": (None, {}),
    "removed": ({}, None),
    "changed": ({"grid": {"weights": [0.5]}}, {"grid": {"weights": [0.5, 1]}}),
}
UNFINISHED = {
    "no status": (),
    "running": (("Succeeded", "Unknown"), ("Finished", "False")),
    "failed": (("Succeeded", "False"), ("Finished", "True")),
}


@pytest.mark.parametrize("ends", UNFINISHED.values(), ids=UNFINISHED)
@pytest.mark.parametrize(("old", "new"), EVALUATIONS.values(), ids=EVALUATIONS)
def test_the_evaluation_cannot_change_before_the_training_has_succeeded(
    old: dict[str, Any] | None, new: dict[str, Any] | None, ends: tuple[tuple[str, str], ...]
) -> None:
    said = refusals(with_evaluation(new, *ends), old=with_evaluation(old, *ends))

    assert [text.startswith("spec.evaluation: ") and "wait for its end" in text for text in said] == [True]


@pytest.mark.parametrize(("old", "new"), EVALUATIONS.values(), ids=EVALUATIONS)
def test_the_evaluation_of_a_training_that_has_succeeded_may_change(
    old: dict[str, Any] | None, new: dict[str, Any] | None
) -> None:
    ends = (("Succeeded", "True"), ("Finished", "True"))

    assert refusals(with_evaluation(new, *ends), old=with_evaluation(old, *ends)) == []


@pytest.mark.parametrize("wish", [None, {}, {"grid": {}}], ids=["none", "empty", "grid"])
def test_an_evaluation_that_stays_the_same_is_no_change(wish: dict[str, Any] | None) -> None:
    assert refusals(with_evaluation(wish), old=with_evaluation(wish)) == []


def test_an_optional_field_cannot_be_added_or_removed_later() -> None:
    with_steps = make_document(("training.maxSteps", 5))

    assert refusals(with_steps, old=make_document()) != []
    assert refusals(make_document(), old=with_steps) != []


def test_every_default_is_valid_by_itself() -> None:
    # A server judges a default before the fields inside it get theirs.
    for path, node in NODES:
        if "default" in node:
            faults = [
                *violations(node, node["default"]),
                *rule_faults(compile_tree(node, False), node["default"], node["default"]),
            ]
            assert faults == [], path


def test_defaults_of_server_and_python_agree() -> None:
    filled = with_defaults(SCHEMA, make_document())

    assert parse_training(make_document()).to_document()["spec"] == filled["spec"]
