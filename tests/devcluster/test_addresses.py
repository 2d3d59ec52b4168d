"""lora_devcluster.addresses: no two pods of this machine share an address."""

from lora_devcluster.addresses import PodAddresses


def test_addresses_of_one_cluster_differ_and_lie_in_one_range() -> None:
    addresses = PodAddresses()
    try:
        given = [addresses.next() for _ in range(600)]
    finally:
        addresses.close()

    assert len(set(given)) == 600
    assert len({address.split(".")[1] for address in given}) == 1
    assert all(0 <= int(part) < 255 for address in given for part in address.split("."))


def test_two_clusters_at_once_have_ranges_of_their_own() -> None:
    first, second, third = PodAddresses(), PodAddresses(), PodAddresses()
    try:
        ranges = [one.next().split(".")[1] for one in (first, second)]
        first.close()
        again = third.next().split(".")[1]
    finally:
        for one in (first, second, third):
            one.close()

    assert ranges[0] != ranges[1]
    assert again == ranges[0]
