"""Optimizers by name: each makes steps on the CPU, goes on from its state, and says what it is."""

import inspect
import io
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from lora_api.optimizer_arguments import ARGUMENTS
from lora_api.optimizer_spec import ADAPTIVE, SCHEDULE_FREE, Optimizer, OptimizerName
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.optim import evaluating, make_optimizer, optimizer_class_name
from lora_trainer.optim.optimizers import CLASSES

pytestmark = pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
NAMES: tuple[Any, ...] = get_args(OptimizerName)
NOT_THE_USERS = {
    "params", "lr", "fused", "foreach", "capturable", "differentiable", "maximize", "optim_bits", "is_paged", "args",
    "fsdp_in_use", "nesterov", "dampening",
}  # fmt: skip
NO_8_BIT = {"amsgrad"}
"""Argument of bitsandbytes that it refuses or ignores."""


def spec_of(name: Any) -> Optimizer:
    return Optimizer(name=name, learning_rate=1.0 if name in ADAPTIVE else 0.01)


def make_weights(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    random = torch.Generator().manual_seed(7)
    return [nn.Parameter(torch.randn(shape, generator=random).to(dtype)) for shape in ((96, 64), (8,))]


def make(name: Any, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    spec = spec_of(name)
    names = ("unet", "text_encoder")
    groups = [{"params": [w], "lr": spec.learning_rate, "name": n} for n, w in zip(names, weights, strict=True)]
    return make_optimizer(spec, groups)


def train(optimizer: torch.optim.Optimizer, weights: list[nn.Parameter], steps: range) -> None:
    """Towards the middle of a bowl, with noise that depends on the step."""
    for step in steps:
        random = torch.Generator().manual_seed(step)
        for weight in weights:
            weight.grad = weight.detach() + 0.1 * torch.randn(weight.shape, generator=random).to(weight.dtype)
        optimizer.step()


def stored(state: dict[str, Any]) -> dict[str, Any]:
    """The state through a file."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    content: dict[str, Any] = torch.load(file, weights_only=True)
    return content


@pytest.mark.parametrize("name", NAMES)
def test_steps_go_down_the_bowl(name: Any) -> None:
    weights = make_weights()
    start = [weight.detach().norm() for weight in weights]
    optimizer = make(name, weights)

    # dadaptation's first guess of the rate is far too high; it takes a while to come back.
    train(optimizer, weights, range(60))

    with evaluating(optimizer):
        assert all(weight.norm() < before for weight, before in zip(weights, start, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_full_precision_learn_too(name: Any) -> None:
    weights = make_weights(torch.bfloat16)
    start = weights[0].detach().clone()
    optimizer = make(name, weights)

    train(optimizer, weights, range(30))

    # Only some of them: the first steps of prodigy are too small for bf16 to hold beside a weight of 1.
    assert not torch.equal(weights[0], start)
    assert all(weight.isfinite().all() for weight in weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", NAMES)
def test_a_run_in_two_halves_is_the_whole_run(name: Any, dtype: torch.dtype) -> None:
    whole, halves = make_weights(dtype), make_weights(dtype)
    train(make(name, whole), whole, range(6))

    first = make(name, halves)
    train(first, halves, range(3))
    second = make(name, halves)
    second.load_state_dict(stored(first.state_dict()))
    train(second, halves, range(3, 6))

    assert all(torch.equal(a, b) for a, b in zip(whole, halves, strict=True))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "dadaptsgd"])  # the API refuses its warm-up
def test_a_first_step_of_rate_zero_does_no_harm(name: Any) -> None:
    weights = make_weights()
    start = [weight.detach().clone() for weight in weights]
    optimizer = make(name, weights)
    peaks = [group["lr"] for group in optimizer.param_groups]

    for group in optimizer.param_groups:
        group["lr"] = 0.0
    train(optimizer, weights, range(1))
    unchanged = [torch.equal(weight, before) for weight, before in zip(weights, start, strict=True)]
    for group, peak in zip(optimizer.param_groups, peaks, strict=True):
        group["lr"] = peak
    train(optimizer, weights, range(1, 10))

    assert all(unchanged)
    assert all(torch.isfinite(weight).all() for weight in weights)
    assert not torch.equal(weights[0], start[0])


@pytest.mark.parametrize("name", SCHEDULE_FREE)
def test_evaluating_shows_the_average_and_gives_every_bit_back(name: Any) -> None:
    weights = make_weights()
    optimizer = make(name, weights)
    train(optimizer, weights, range(12))
    trained = [weight.detach().clone() for weight in weights]

    with evaluating(optimizer):
        averaged = weights[0].detach().clone()

    beta = optimizer.param_groups[0].get("betas", (optimizer.param_groups[0].get("momentum"),))[0]
    expected = (trained[0] - (1 - beta) * optimizer.state[weights[0]]["z"]) / beta
    assert torch.allclose(averaged, expected, atol=1e-5)
    assert not torch.equal(averaged, trained[0])
    assert all(torch.equal(weight, before) for weight, before in zip(weights, trained, strict=True))
    assert all(group["train_mode"] for group in optimizer.param_groups)


def test_accelerate_wraps_without_changing_this() -> None:
    weights = make_weights()
    optimizer = Accelerator(cpu=True).prepare_optimizer(make("schedulefree", weights))
    train(optimizer, weights, range(5))
    trained = weights[0].detach().clone()

    with evaluating(optimizer):
        assert not torch.equal(weights[0], trained)

    assert torch.equal(weights[0], trained)


def test_evaluating_leaves_other_optimizers_alone() -> None:
    weights = make_weights()
    optimizer = make("adamw", weights)
    before = weights[0].detach().clone()

    with evaluating(optimizer):
        assert torch.equal(weights[0], before)


def test_nesterovs_momentum_is_the_real_one() -> None:
    weight = nn.Parameter(torch.ones(4))
    optimizer = make_optimizer(Optimizer(name="sgdnesterov"), [{"params": [weight], "lr": 0.1, "name": "unet"}])

    for _ in range(2):
        weight.grad = torch.ones(4)
        optimizer.step()

    # buffer b <- 0.9 b + g, step g + 0.9 b: first 1.9, then 1 + 0.9 * 1.9.
    assert weight[0].item() == pytest.approx(1 - 0.1 * 1.9 - 0.1 * 2.71)


def test_adafactor_takes_the_rate_that_is_set() -> None:
    weight = nn.Parameter(torch.ones(4, 4))
    optimizer = make_optimizer(Optimizer(name="adafactor"), [{"params": [weight], "lr": 0.1, "name": "unet"}])
    weight.grad = torch.full((4, 4), 3.0)

    optimizer.step()

    # A gradient that is the same everywhere is divided by its own size.
    assert weight[0, 0].item() == pytest.approx(0.9, abs=1e-4)


@pytest.fixture(scope="module")
def signatures() -> Iterator[dict[str, dict[str, Any]]]:
    yield {
        name: {p.name: p.default for p in inspect.signature(cls).parameters.values()} for name, cls in CLASSES.items()
    }


def test_every_name_of_the_api_has_a_class_and_a_table_of_arguments() -> None:
    assert set(NAMES) == set(CLASSES) == set(ARGUMENTS)


@pytest.mark.parametrize("name", NAMES)
def test_the_table_of_arguments_is_that_of_the_class(name: str, signatures: dict[str, dict[str, Any]]) -> None:
    taken = set(signatures[name]) - NOT_THE_USERS
    if "min_8bit_size" in taken:
        taken -= NO_8_BIT

    assert set(ARGUMENTS[name]) == taken


@pytest.mark.parametrize("name", NAMES)
def test_the_defaults_of_the_class_fit_the_table(name: str, signatures: dict[str, dict[str, Any]]) -> None:
    ours = {"momentum", "relative_step", "growth_rate"}  # preset, only False, or infinite

    misfits = [a for a, kind in ARGUMENTS[name].items() if a not in ours and not kind.fits(signatures[name][a])]

    assert misfits == []


def test_arguments_reach_the_optimizer() -> None:
    spec = Optimizer(name="adamw", arguments={"weight_decay": "0.25", "betas": "(0.5, 0.75)"})

    optimizer = make_optimizer(spec, [{"params": make_weights(), "lr": 0.1, "name": "unet"}])

    assert optimizer.param_groups[0]["weight_decay"] == 0.25
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.75)


def test_what_a_class_itself_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("no such device")

    monkeypatch.setattr("lora_trainer.optim.optimizers.CLASSES", {"adamw": refuse})

    with pytest.raises(InvalidConfiguration, match=r"spec\.optimizer\.arguments do not fit adamw: no such device; "):
        make_optimizer(Optimizer(name="adamw"), [{"params": make_weights(), "lr": 0.1, "name": "unet"}])


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (Optimizer(name="adamw8bit"), "bitsandbytes.optim.adamw.AdamW8bit"),
        (Optimizer(name="adamw", arguments={"weight_decay": "0.01"}), "torch.optim.adamw.AdamW(weight_decay=0.01)"),
        (
            Optimizer(name="adafactor", arguments={"scale_parameter": "True"}),
            "transformers.optimization.Adafactor(scale_parameter=True,relative_step=False,warmup_init=False)",
        ),
        (Optimizer(name="sgdnesterov"), "torch.optim.sgd.SGD(momentum=0.9)"),
    ],
)
def test_the_optimizer_is_named_as_sd_scripts_names_it(spec: Optimizer, expected: str) -> None:
    assert optimizer_class_name(spec) == expected
