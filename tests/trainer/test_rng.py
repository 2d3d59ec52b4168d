"""Seeds are a stable function of everything they are derived from."""

import hashlib

import torch

from lora_trainer.generators import generator
from lora_trainer.rng import Purpose, derive_seed, uniform


def test_a_seed_is_blake2b_of_its_tagged_parts() -> None:
    texts = [b"i7", b"snoise", b"i3"]
    content = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    expected = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little") >> 1

    assert derive_seed(7, Purpose.NOISE, 3) == expected


def test_seeds_never_change_between_versions() -> None:
    assert derive_seed(1234, Purpose.NOISE, 1, 0) == 2141484135672385440


def test_no_two_ways_of_splitting_parts_meet() -> None:
    seeds = {
        derive_seed(1, "ab", "c"),
        derive_seed(1, "a", "bc"),
        derive_seed(1, "abc"),
        derive_seed(1, 12, 3),
        derive_seed(1, 1, 23),
        derive_seed(1, "12", 3),
        derive_seed(11),
        derive_seed(1, 1),
    }

    assert len(seeds) == 8


def test_seeds_have_63_bits() -> None:
    seeds = [derive_seed(0, index) for index in range(2000)]

    assert 0 <= min(seeds) < 2**55
    assert 2**62 < max(seeds) < 2**63


def test_equal_generators_draw_equal_numbers_and_leave_the_global_one_alone() -> None:
    before = torch.random.get_rng_state()

    first, second = (torch.randn(8, generator=generator(1, Purpose.NOISE, 5)) for _ in range(2))

    assert torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_uniform_numbers_fill_the_unit_interval_evenly() -> None:
    drawn = [uniform(3, Purpose.COLOR, index) for index in range(4000)]

    assert all(0 <= number < 1 for number in drawn)
    # The mean of 4000 has a standard deviation of 0.0046.
    assert abs(sum(drawn) / 4000 - 0.5) < 0.023
    assert uniform(3, Purpose.COLOR, 7) == drawn[7] == (derive_seed(3, Purpose.COLOR, 7) // 1024) / 2**53
