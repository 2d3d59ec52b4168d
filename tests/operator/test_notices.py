"""lora_operator.notices"""

from lora_api.status import Notice
from lora_operator.notices import MAX_NOTICES, merge_notices


def notice(number: int) -> Notice:
    return Notice(reason="StatePassedOver", message=f"step {number}")


def test_what_is_told_again_is_remembered_once() -> None:
    assert merge_notices((notice(1), notice(2)), (notice(1),)) == (notice(2), notice(1))


def test_the_newest_are_kept_whatever_is_still_told() -> None:
    before = tuple(notice(number) for number in range(MAX_NOTICES))
    told = tuple(notice(number) for number in range(100, 100 + MAX_NOTICES))

    assert merge_notices(before, told) == told


def test_no_secret_is_remembered() -> None:
    (kept,) = merge_notices((), (Notice(reason="SlowStore", message="GET /k?X-Amz-Signature=5ec0de"),))

    assert kept.message == "GET /k?X-Amz-Signature=***"
    assert merge_notices((kept,), (Notice(reason="SlowStore", message="GET /k?X-Amz-Signature=5ec0de"),)) == (kept,)
