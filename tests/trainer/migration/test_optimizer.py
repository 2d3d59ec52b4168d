"""Optimizers, rates and schedules of sd-scripts."""

import pytest

from lora_trainer.errors import InvalidConfiguration
from tests.support.imports import from_arguments, leftovers_of, value_at

RATES = "--learning_rate 1 --unet_lr 1 --text_encoder_lr 1"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("AdamW", "adamw"),
        ("ADAMW8BIT", "adamw8bit"),
        ("PagedAdamW32bit", "pagedadamw32bit"),
        ("Lion", "lion"),
        ("SGDNesterov8bit", "sgdnesterov8bit"),
        ("DAdaptation", "dadaptation"),
        ("DAdaptAdamPreprint", "dadaptation"),
        ("Prodigy", "prodigy"),
        ("AdamWScheduleFree", "schedulefree"),
        ("SGDScheduleFree", "sgdschedulefree"),
    ],
)
def test_optimizers_keep_their_names(given: str, name: str) -> None:
    assert from_arguments(f"--optimizer_type {given} {RATES}").spec.optimizer.name == name


@pytest.mark.parametrize(("flag", "name"), [("use_8bit_adam", "adamw8bit"), ("use_lion_optimizer", "lion")])
def test_old_switches_choose_the_optimizer(flag: str, name: str) -> None:
    assert from_arguments(f"--{flag}").spec.optimizer.name == name


def test_arguments_are_written_as_python_writes_them() -> None:
    arguments = "--optimizer_type AdamW --optimizer_args weight_decay=0.1 betas=0.9,0.99 'eps=1e-7'"

    found = from_arguments(arguments).spec.optimizer.arguments

    assert found == {"weight_decay": "0.1", "betas": "(0.9, 0.99)", "eps": "1e-7"}


def test_an_argument_that_the_optimizer_does_not_know_is_told() -> None:
    told = leftovers_of("--optimizer_type AdamW --optimizer_args weight_decay=0.1 warp=9")

    assert list(told) == ["optimizer.arguments.warp"]
    assert told["optimizer.arguments.warp"].startswith("is no argument of adamw")


@pytest.mark.parametrize(
    ("arguments", "path", "value"),
    [
        ("--lr_scheduler cosine --lr_warmup_steps 100", "optimizer.schedule.warmupSteps", 100),
        ("--lr_scheduler cosine --lr_warmup_steps 0.05", "optimizer.schedule.warmupFraction", 0.05),
        ("--lr_scheduler cosine --lr_warmup_steps 5%", "optimizer.schedule.warmupFraction", 0.05),
        ("--lr_scheduler constant_with_warmup", "optimizer.schedule.name", "constant"),
        ("--lr_scheduler cosine_with_restarts --lr_scheduler_num_cycles 3", "optimizer.schedule.cycles", 3),
        ("--lr_scheduler cosine --lr_scheduler_num_cycles 3", "optimizer.schedule.cycles", None),
        ("--lr_scheduler polynomial --lr_scheduler_power 2", "optimizer.schedule.power", 2.0),
        ("--lr_scheduler inverse_sqrt --lr_scheduler_timescale 50", "optimizer.schedule.timescale", 50),
        ("--lr_scheduler warmup_stable_decay --lr_decay_steps 0.2", "optimizer.schedule.decayFraction", 0.2),
        (
            "--lr_scheduler cosine_with_min_lr --lr_scheduler_min_lr_ratio 0.1",
            "optimizer.schedule.minRateFraction",
            0.1,
        ),
        ("--max_grad_norm 0", "optimizer.maxGradNorm", 0.0),
        ("--text_encoder_lr 1e-5", "optimizer.textEncoderLearningRate", 1e-5),
    ],
)
def test_schedules_keep_their_shape(arguments: str, path: str, value: object) -> None:
    assert value_at(from_arguments(arguments), path) == value


def test_step_rules_become_pieces() -> None:
    text = "--lr_scheduler piecewise_constant --lr_scheduler_args step_rules=1:100,0.1:200,0.01"

    pieces = from_arguments(text).spec.optimizer.schedule.pieces

    assert [(piece.from_step, piece.factor) for piece in pieces] == [(100, 0.1), (200, 0.01)]


def test_prodigy_gets_the_one_rate_that_counts() -> None:
    optimizer = from_arguments("--optimizer_type Prodigy --unet_lr 1 --text_encoder_lr 0.5").spec.optimizer

    assert (optimizer.learning_rate, optimizer.unet_learning_rate) == (0.5, None)


def test_adafactors_fixed_rate_needs_no_arguments() -> None:
    recipe = "--optimizer_args scale_parameter=False relative_step=False warmup_init=False"

    optimizer = from_arguments(f"--optimizer_type Adafactor --learning_rate 1e-4 {recipe}").spec.optimizer

    assert (optimizer.name, dict(optimizer.arguments)) == ("adafactor", {})


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ("--optimizer_type Adafactor", "optimizer_args relative_step"),
        ("--optimizer_type my.own.Optimizer", "optimizer_type"),
        ("--lr_scheduler_type OneCycleLR", "lr_scheduler_type"),
        ("--lr_scheduler slanted", "lr_scheduler"),
        ("--lr_scheduler cosine_with_min_lr --lr_scheduler_num_cycles 2", "lr_scheduler_num_cycles"),
        (f"--optimizer_type AdamWScheduleFree {RATES} --lr_warmup_steps 9", "lr_warmup_steps"),
        (f"--optimizer_type AdamWScheduleFree {RATES} --lr_scheduler cosine", "lr_scheduler"),
        ("--text_encoder_lr 1e-4 1e-5", "text_encoder_lr"),
        (f"--optimizer_type Prodigy {RATES} --network_args loraplus_lr_ratio=4", "optimizer.loraPlus"),
        (f"--optimizer_type Prodigy {RATES} --network_args mid_lr_weight=0.5", "network.blocks M00"),
    ],
)
def test_what_cannot_be_carried_over_is_told(arguments: str, name: str) -> None:
    assert list(leftovers_of(arguments)) == [name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--optimizer_args fast", "optimizer_args holds 'fast'"),
        ("--lr_scheduler piecewise_constant --lr_scheduler_args a=b", "needs step_rules"),
        ("--optimizer_type Prodigy", "learningRate multiplies the rate"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments: str, message: str) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        from_arguments(arguments)
