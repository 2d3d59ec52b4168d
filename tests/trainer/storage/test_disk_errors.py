"""What a failing disk means for people."""

import errno
from pathlib import Path

import pytest

from lora_trainer.storage.disk_errors import DiskUnavailable, disk_errors

DISK = Path("/data/x")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_left_is_said_with_a_cure(code: int) -> None:
    with (
        pytest.raises(DiskUnavailable, match="the disk is full: /data/x cannot be written") as caught,
        disk_errors(DISK),
    ):
        raise OSError(code, "full")

    assert caught.value.hint.startswith("Free space there")


def test_other_errors_keep_the_words_of_the_system() -> None:
    with pytest.raises(DiskUnavailable, match="/data/x cannot be written: Read-only file system"), disk_errors(DISK):
        raise OSError(errno.EROFS, "Read-only file system")


def test_errors_that_are_not_the_disks_pass() -> None:
    with pytest.raises(KeyError), disk_errors(DISK):
        raise KeyError("x")
