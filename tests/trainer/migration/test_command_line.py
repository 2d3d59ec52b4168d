"""Command lines of sd-scripts, as they stand in shells, scripts and batch files."""

from pathlib import Path

import pytest

from lora_trainer.errors import InvalidConfiguration
from lora_trainer.migration.command_line import read_command
from tests.support.imports import from_arguments, from_text, leftovers_of, value_at

SCRIPT = r"""
#!/bin/bash
# accelerate launch train_network.py --network_dim 1
export MODEL="owner/base model"  # the base
root=/data # where all lies
out=${root}/out
cd sd-scripts
accelerate launch --num_processes 2 ./sdxl_train_network.py \
  --pretrained_model_name_or_path="$MODEL" --output_dir ${out}/x \
  --network_dim=32 --flip_aug --network_args "conv_dim=8" conv_alpha=1 && echo done --seed 9
"""


def test_a_script_is_read_like_a_shell_reads_it() -> None:
    source = read_command(SCRIPT)

    assert source.raw == {
        "pretrained_model_name_or_path": "owner/base model",
        "output_dir": "/data/out/x",
        "network_dim": "32",
        "flip_aug": True,
        "network_args": ["conv_dim=8", "conv_alpha=1"],
    }


def test_the_script_and_the_launcher_count_too() -> None:
    source = read_command(SCRIPT)

    assert source.is_sdxl
    assert source.fields == {"parallelism.gpusPerNode": 2}


@pytest.mark.parametrize(
    ("text", "raw"),
    [
        ("train_network.py --network_dim ${DIM:-32}", {"network_dim": "32"}),
        ("DIM=8\ntrain_network.py --network_dim ${DIM:-32}", {"network_dim": "8"}),
        ('set "net=a b"\r\ntrain_network.py --output_name="!net!"\r\n', {"output_name": "a b"}),
        ("train_network.py --caption_prefix 'wow!so!'", {"caption_prefix": "wow!so!"}),
        (
            'R=(--seed 3\n  --v2)\ntrain_network.py --output_name a "${R[@]}"',
            {"output_name": "a", "seed": "3", "v2": True},
        ),
    ],
)
def test_variables_and_lists_of_scripts_are_put_in(text: str, raw: dict[str, object]) -> None:
    assert read_command(text).raw == raw


@pytest.mark.parametrize(
    "text",
    [
        "more=()\nif x; then more+=('--v2'); fi\ntrain_network.py --output_name a ${more[@]}",
        "train_network.py --output_name a ${more[@]}",
        "$more = [System.Collections.ArrayList]::new()\ntrain_network.py --output_name a $more",
    ],
)
def test_lists_that_grow_as_a_script_runs_are_told(text: str) -> None:
    source = read_command(text)

    assert source.raw == {"output_name": "a"}
    assert [leftover.name for leftover in source.leftovers] == ["more"]


@pytest.mark.parametrize("mark", ["^", "`"])
def test_lines_of_windows_keep_their_backslashes(mark: str) -> None:
    source = read_command(
        f"accelerate launch train_network.py {mark}\r\n  --train_data_dir C:\\pics\\new {mark}\r\n --v2"
    )

    assert source.raw == {"train_data_dir": "C:\\pics\\new", "v2": True}


def test_a_remark_ends_the_command_and_a_hash_in_a_word_does_not() -> None:
    source = read_command("train_network.py --output_name a#1 --caption_separator '#' --seed 4 # my seed")

    assert source.raw == {"output_name": "a#1", "caption_separator": "#", "seed": "4"}


def test_arguments_alone_are_enough() -> None:
    assert read_command("--network_dim 8 --v2").raw == {"network_dim": "8", "v2": True}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("echo hello", "starts no train_network.py"),
        ("python flux_train_network.py --seed 1", "flux_train_network.py trains a model that is not known here"),
        ("python train_network.py --seed $SEED", "uses the variable SEED"),
        ("python train_network.py --seed '1", "cannot be split into words"),
        (
            "python train_network.py --seed $(date +%s)",
            r"holds \$\(date \+%s\), which a shell computes; put its value in",
        ),
        ("python train_network.py --seed `id -u`", "holds `id -u`, which a shell computes"),
        ("python train_network.py --seed ${SEED%x}", "which a shell computes"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        read_command(text)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("network.rank", 4),
        ("network.alpha", 1.0),
        ("dataset.captions.extension", ".caption"),
        ("dataset.buckets.enabled", False),
        ("dataset.latentCache", "Memory"),
        ("optimizer.name", "adamw"),
        ("optimizer.learningRate", 2e-6),
        ("training.precision", "fp32"),
        ("training.maxSteps", 1600),
        ("output.precision", "fp32"),
    ],
)
def test_what_is_not_said_has_the_default_of_sd_scripts(path: str, value: object) -> None:
    assert value_at(from_arguments(), path) == value


def test_bucket_limits_are_those_of_sd_scripts_when_buckets_are_on() -> None:
    buckets = from_arguments("--enable_bucket --resolution 768 --max_bucket_reso 1000").spec.dataset.buckets

    assert (buckets.min_px, buckets.max_px, buckets.upscale) == (256, 1024, True)


def test_an_unknown_argument_is_told() -> None:
    assert set(leftovers_of("--frobnicate 3")) == {"frobnicate"}


def test_a_secret_is_never_shown() -> None:
    _, draft = from_text("train_network.py --wandb_api_key s3cr3t --huggingface_token hf_x")

    assert [leftover.value for leftover in draft.leftovers] == ["(secret)", "(secret)"]


def test_the_configuration_file_counts_less_than_the_command(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('[a]\nnetwork_dim = 8\nseed = 5\n[b]\nlr_scheduler = "cosine"\n')

    training, _ = from_text("train_network.py --config_file /elsewhere/run --seed 7", tmp_path)

    assert (training.spec.network.rank, training.spec.training.seed) == (8, 7)
    assert training.spec.optimizer.schedule.name == "cosine"


def test_a_configuration_file_that_is_not_here_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"config_file names run\.toml, which is not here"):
        from_text("train_network.py --config_file run.toml", tmp_path)
