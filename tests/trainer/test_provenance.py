"""lora_trainer.provenance: what changed, in words; and nothing exactly when the digests are equal."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_api.run_manifest import result_settings, spec_digest
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.provenance import Differences, Provenance, check_resumable, differences
from tests.support.documents import make_training

NAMES = st.text(max_size=4)
DIGESTS = st.dictionaries(NAMES, st.sampled_from(["aa", "bb"]), max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from([0.0, 1.0, 0.5]) | NAMES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)
SPECS = st.dictionaries(NAMES, VALUES, max_size=3)


def of(spec: Any = (), dataset: Any = (), base: Any = ()) -> Provenance:
    return Provenance(dict(spec), dict(dataset), dict(base))


def digest_of(spec: Any) -> str:
    """As `run_manifest.spec_digest` makes it."""
    return json.dumps(spec, sort_keys=True, separators=(",", ":"))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(SPECS, SPECS, DIGESTS, DIGESTS)
def test_nothing_differs_exactly_where_digests_are_equal(spec: Any, spec2: Any, files: Any, files2: Any) -> None:
    before, now = of(spec, files, files2), of(spec2, files2, files)

    found = differences(before, now)

    assert (found.spec == ()) == (digest_of(spec) == digest_of(spec2))
    assert (found.dataset == ()) == (before.dataset_digest == now.dataset_digest)
    assert (found.base == ()) == (before.base_digest == now.base_digest)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(SPECS, DIGESTS, DIGESTS)
def test_what_was_written_is_read_back(spec: Any, dataset: Any, base: Any) -> None:
    provenance = of(spec, dataset, base)

    assert differences(Provenance.from_json(provenance.to_json()), provenance).all == ()


def test_a_file_name_with_a_line_break_is_told_from_two_files() -> None:
    assert of(dataset={"a aa\nb": "bb"}).dataset_digest != of(dataset={"a": "aa", "b": "bb"}).dataset_digest


def test_the_order_of_writing_does_not_matter() -> None:
    assert of(dataset={"a": "1", "b": "2"}).to_json() == of(dataset={"b": "2", "a": "1"}).to_json()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"spec": {}}', '{"spec": {}, "dataset": [], "base": {}}',
     '{"spec": {}, "dataset": {"a": 1}, "base": {}}'],
)  # fmt: skip
def test_what_is_no_provenance_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Provenance.from_json(text)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("network.rank", 32), "spec.network.rank was 16 and is 32"),
        (("training.maxSteps", 7), "spec.training.maxSteps was not set and is 7"),
        (("training.precision", "fp32"), "spec.training.precision was bf16 and is fp32"),
        (("training.loss", {"zeroTerminalSnr": True}), "spec.training.loss.zeroTerminalSnr was false and is true"),
        (("dataset.captions", {"prefix": "zwx"}), 'spec.dataset.captions.prefix was "" and is zwx'),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_changed_setting_is_told_with_both_values(change: tuple[str, Any], said: str) -> None:
    before, now = make_training().spec, make_training(change).spec

    found = differences(of(result_settings(before)), of(result_settings(now)))

    assert found.spec == (said,)
    assert spec_digest(before) != spec_digest(now)


def test_settings_that_do_not_count_are_no_difference() -> None:
    before, now = make_training().spec, make_training(("checkpoints.everySteps", 5), ("suspend", True)).spec

    assert differences(of(result_settings(before)), of(result_settings(now))).all == ()


def test_an_entry_of_a_list_is_told_by_its_place() -> None:
    before, now = of({"subsets": [{"repeats": 1}, {"repeats": 2}]}), of({"subsets": [{"repeats": 1}, {"repeats": 3}]})

    assert differences(before, now).spec == ("spec.subsets[1].repeats was 2 and is 3",)


def test_a_list_of_another_length_is_told_whole_and_cut_short() -> None:
    said = differences(of({"formats": ["kohya"]}), of({"formats": ["kohya", "x" * 500]})).spec[0]

    assert said.startswith('spec.formats was ["kohya"] and is ["kohya", "xxx')
    assert len(said) < 200


def test_pictures_are_counted_and_named() -> None:
    before = of(dataset={"a.png": "1", "b.png": "1", "c.png": "1"})
    now = of(dataset={"a.png": "2", "b.png": "1", "d.png": "1", "e.png": "1"})

    assert differences(before, now).dataset == (
        "2 pictures are new: d.png, e.png",
        "1 picture or its caption changed: a.png",
        "1 picture is gone: c.png",
    )


def test_a_hundred_changes_are_bounded() -> None:
    many = {f"{index:03d}.png": "1" for index in range(100)}

    found = differences(of(many, many, many), of())

    assert found.dataset == (f"100 pictures are gone: {', '.join(sorted(many)[:10])}, and 90 more",)
    assert found.base[-1] == found.spec[-1] == "and 90 more"
    assert len(found.base) == len(found.spec) == 11


def test_files_of_the_base_are_named() -> None:
    before, now = of(base={"model/unet": "1", "vae": "1"}), of(base={"model/unet": "2", "initial": "1"})

    assert differences(before, now).base == ("initial is new", "model/unet changed", "vae is gone")


def test_a_state_of_the_same_run_is_unchanged() -> None:
    same = of({"a": 1}, {"a.png": "1"}, {"model": "1"})

    assert check_resumable(same, same, on_change="Refuse", place="s3://o/state") is False


def test_a_state_of_other_data_is_refused_with_the_difference_and_the_cure() -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        check_resumable(of(), of(dataset={"50_hina/a.png": "1"}), on_change="Refuse", place="s3://o/state/step-5")

    assert "1 picture is new: 50_hina/a.png" in str(caught.value)
    assert "s3://o/state/step-5" in str(caught.value)
    assert "set spec.resume.onChange to Continue" in str(caught.value)


def test_a_state_of_other_data_is_gone_on_from_when_told_so() -> None:
    assert check_resumable(of(), of(base={"model": "1"}), on_change="Continue", place="") is True


def test_a_state_of_other_settings_is_refused_whatever_was_told() -> None:
    with pytest.raises(InvalidConfiguration, match=r"spec\.rank was 16 and is 32"):
        check_resumable(of({"rank": 16}), of({"rank": 32}), on_change="Continue", place="")


def test_no_difference_is_no_sentence() -> None:
    assert differences(of(), of()) == Differences((), (), ())
