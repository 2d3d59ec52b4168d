"""The fixed draws: the same after every epoch, spread over the timesteps."""

import torch

from lora_trainer.evaluation.draws import MeasuredPicture, batched, fixed_draws, stacked


def make_picture(name: str, size: tuple[int, int] = (4, 4), *, mask: torch.Tensor | None = None) -> MeasuredPicture:
    return MeasuredPicture(name, f"digest of {name}", f"caption of {name}", torch.zeros(2, *size), torch.zeros(6), mask)


def make_pictures(count: int) -> list[MeasuredPicture]:
    return [make_picture(str(index)) for index in range(count)]


def test_every_picture_is_drawn_equally_often() -> None:
    draws = fixed_draws(make_pictures(5), 64, timesteps=(0, 1000), seed=1)

    assert len(draws) == 65
    assert {sum(d.picture.name == str(i) for d in draws) for i in range(5)} == {13}


def test_each_stratum_of_the_timesteps_is_drawn_once() -> None:
    draws = fixed_draws(make_pictures(4), 40, timesteps=(200, 1000), seed=1)

    assert sorted((draw.timestep - 200) // 20 for draw in draws) == list(range(40))


def test_no_picture_has_all_the_low_timesteps() -> None:
    draws = fixed_draws(make_pictures(4), 32, timesteps=(0, 1000), seed=1)

    means = [sum(d.timestep for d in draws if d.picture.name == str(i)) / 8 for i in range(4)]
    assert max(means) - min(means) < 1000 / 32


def test_noise_depends_on_seed_content_and_number_alone() -> None:
    alone = fixed_draws([make_picture("a")], 2, timesteps=(0, 1000), seed=1)
    among = fixed_draws([make_picture("b"), make_picture("a")], 4, timesteps=(0, 1000), seed=1)
    other_seed = fixed_draws([make_picture("a")], 2, timesteps=(0, 1000), seed=2)

    assert torch.equal(alone[1].noise, among[3].noise)
    assert not torch.equal(alone[0].noise, alone[1].noise)
    assert not torch.equal(alone[0].noise, other_seed[0].noise)


def test_nothing_is_drawn_where_no_passes_are_wanted() -> None:
    assert fixed_draws(make_pictures(2), 0, timesteps=(0, 1000), seed=1) == ()


def test_only_pictures_of_one_size_go_through_the_model_together() -> None:
    pictures = [make_picture("a"), make_picture("b", (4, 8)), make_picture("c")]

    groups = batched(fixed_draws(pictures, 6, timesteps=(0, 1000), seed=1), 3)

    assert groups == [(0, 1, 4), (5,), (2, 3)]


def test_of_a_picture_without_a_mask_all_counts_beside_one_with_a_mask() -> None:
    draws = fixed_draws([make_picture("a"), make_picture("b", mask=torch.zeros(1, 4, 4))], 2, timesteps=(0, 9), seed=1)

    masks = stacked(draws, torch.device("cpu")).masks

    assert masks is not None
    assert masks.mean(dim=(1, 2, 3)).tolist() == [1.0, 0.0]
