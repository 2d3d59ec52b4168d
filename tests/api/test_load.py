"""lora_api.load: YAML as kubectl reads it, and every error at once."""

import pytest

from lora_api import InvalidTraining, load_training, parse_training
from lora_api.load import dotted, parse_yaml
from tests.support.documents import make_document

HEAD = """\
apiVersion: lora-operator.io/v1alpha1
kind: LoraTraining
metadata: {name: hina}
spec:
  baseModel: {uri: s3://models/sd15}
  dataset: {uri: s3://lora/data}
  output: {uri: s3://lora/runs/hina}
"""


def problems_of(text: str) -> list[str]:
    with pytest.raises(InvalidTraining) as caught:
        load_training(text)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("5E-5", 5e-5),
        (".5", 0.5),
        ("1.", 1.0),
        ("12", 12),
        ("0x10", 16),
        ("0o10", 8),
        ("1:30", "1:30"),
        ("2026-01-02", "2026-01-02"),
        ("true", True),
        ("yes", True),
        ("1e", "1e"),
        ("", None),
    ],
)
def test_scalars_are_read_as_kubectl_reads_them(text: str, value: object) -> None:
    document, _ = parse_yaml(f"a: {text}")

    assert document["a"] == value
    assert type(document["a"]) is type(value)


def test_a_rate_in_scientific_notation_is_a_number() -> None:
    training = load_training(HEAD + "  optimizer: {learningRate: 1e-4}\n")

    assert training.spec.optimizer.learning_rate == 1e-4


def test_all_problems_are_told_at_once_with_their_lines() -> None:
    text = HEAD + "  network: {rank: 2000, alhpa: 8}\n  training:\n    epochs: 1.5\n    seed: '7'\n"

    assert problems_of(text) == [
        "line 8: spec.network.rank is 2000, but must be at most 1024",
        "line 8: spec.network.alhpa is no known field; did you mean alpha?",
        "line 10: spec.training.epochs is 1.5, but must be an integer",
        "line 11: spec.training.seed is '7', but must be an integer",
    ]


def test_all_broken_rules_of_one_section_are_told_at_once() -> None:
    text = HEAD + "  network:\n    convRank: 4\n    unet: false\n    textEncoder: false\n    lokrFactor: 8\n"

    assert [problem.partition(": ")[2].partition(";")[0] for problem in problems_of(text)] == [
        "spec.network is inconsistent: convRank and convAlpha need a type that adapts 3x3 convolutions",
        "spec.network is inconsistent: lokrFactor belongs to type lokr",
        "spec.network is inconsistent: unet and textEncoder are both false, so nothing would be trained",
        "spec.network is inconsistent: convRank and convAlpha belong to the UNet, which is not trained while unet is "
        "false",
    ]


def test_every_wrong_argument_of_the_optimizer_is_told_with_its_line() -> None:
    text = HEAD + "  optimizer:\n    arguments:\n      eps: none\n      betas: '0.9'\n"

    assert [problem.partition(", but ")[0] for problem in problems_of(text)] == [
        "line 10: spec.optimizer.arguments.eps is 'none'",
        "line 11: spec.optimizer.arguments.betas is '0.9'",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("network.rank", 0), "spec.network.rank is 0, but must be at least 1"),
        (("network.alpha", 0), "spec.network.alpha is 0, but must be more than 0.0"),
        (("training.precision", "int8"), "spec.training.precision is 'int8', but must be 'bf16', 'fp16' or 'fp32'"),
        (
            ("training.compile", True),
            "spec.training.compile is true, which is not supported yet; leave it out or use false",
        ),
        (
            ("optimizer.arguments", {"decay": "0.1"}),
            "spec.optimizer.arguments.decay is no argument of adamw8bit; known are betas, eps, ",
        ),
        (
            ("dataset.resolution", 500),
            "spec.dataset.resolution is 500, but sides must be multiples of 8 from 64 to 4096; use 512, 768 or 768x512",
        ),
        (("dataset.resolution", "big"), "spec.dataset.resolution is 'big', but must be an integer or must match"),
        (("dataset.uri", None), "spec.dataset is inconsistent: exactly one of uri and subsets must be set"),
        (("output.uri", "s3://lora/data/out"), "output.uri must not lie inside dataset.uri; write somewhere else"),
        (
            ("storage", {"anonymous": True, "credentialsSecretRef": {"name": "s3"}}),
            "spec.storage is inconsistent: anonymous and credentialsSecretRef exclude each other; remove one",
        ),
        (("dataset.uri", "ftp://x/y"), "spec.dataset.uri is ftp://x/y, which is no URI that works here"),
        (("dataset.uri", "s3://b/a/../c"), "spec.dataset.uri is s3://b/a/../c, but must not contain '..'"),
        (("output.uri", "hf://a/b"), "use s3://bucket/prefix, pvc://claim/path"),
        (("dataset.buckets", {"minPx": 100}), "spec.dataset.buckets.minPx is 100, but must be a multiple of 8"),
        (("dataset.buckets", {"minPx": 320, "stepPx": 96}), "minPx must be a multiple of stepPx"),
        (("pod.env", [{"name": "A"}]), "exactly one of value, secretKeyRef and configMapKeyRef must be set"),
        (("training.maxSteps", "9"), "spec.training.maxSteps is '9', but must be an integer"),
        (("scheduling.tolerations", {}), "spec.scheduling.tolerations is {}, but must be a list"),
    ],
)
def test_each_mistake_has_a_message_that_names_field_value_and_cure(change: tuple[str, object], message: str) -> None:
    with pytest.raises(InvalidTraining) as caught:
        parse_training(make_document(change))

    assert message in str(caught.value)
    assert len(caught.value.problems) == 1


def test_a_missing_source_is_named() -> None:
    document = make_document()
    del document["spec"]["baseModel"]

    with pytest.raises(InvalidTraining, match=r"spec\.baseModel is missing; add it"):
        parse_training(document)


@pytest.mark.parametrize("name", ["a" * 53, "Hina", "1st", "a_b", "a."])
def test_a_name_that_kubernetes_would_refuse_is_refused(name: str) -> None:
    with pytest.raises(InvalidTraining, match=r"metadata\.name is .* but must be at most 52"):
        parse_training(make_document(name=name))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "line 1: the file must hold one LoraTraining"),
        ("a: [\n", "the file is no valid YAML"),
        ("a: 1\n---\na: 2\n", "the file is no valid YAML"),
        ("a: 1\nb: 2\na: 3\n", "line 3: a is set twice; remove one"),
        ("", "the file must hold one LoraTraining"),
        ("a: 1\nb: \0\n", "line 2: the file is no valid YAML: it holds the character 0x0; remove it"),
        ("[" * 5000, "the file is nested too deeply"),
        ("a: &a [*a]\n", "the file is nested too deeply"),
        ("a: 1\nb: {[c]: 1}\n", "line 2: b has a list or a map as a key; write a name"),
        ("a: 1\nb: !!int x\n", "line 2: the file is no valid YAML: 'x' is no value of its kind (int)"),
        (f"a: {'9' * 5000}\n", "is no value of its kind (int)"),
    ],
)
def test_text_that_is_no_single_object_is_refused(text: str, message: str) -> None:
    assert message in problems_of(text)[0]


def test_unknown_field_deep_in_a_list_gets_a_suggestion() -> None:
    text = HEAD + "  samples:\n    prompts:\n      - {prompt: a cat, step: 3}\n"

    assert problems_of(text) == ["line 10: spec.samples.prompts[0].step is no known field; did you mean steps?"]


def test_a_path_is_written_as_a_user_would() -> None:
    assert dotted(("spec", "pod", "env", 2, "name")) == "spec.pod.env[2].name"


def test_a_file_whose_aliases_multiply_is_refused_before_it_fills_the_memory() -> None:
    levels = ["a: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"b{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]

    assert problems_of("\n".join(levels)) == [
        "the file holds more than 100,000 values, aliases counted as what they stand for; it is no LoraTraining"
    ]


def test_an_alias_of_itself_is_refused() -> None:
    assert problems_of("a: &a [*a]\n") == ["the file is nested too deeply; it is no LoraTraining"]
