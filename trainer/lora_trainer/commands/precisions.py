"""Number formats of adapter files, as options of the commands that write them."""

from enum import StrEnum


class Precision(StrEnum):
    """Number format of a file."""

    FP16 = "fp16"
    BF16 = "bf16"
    FP32 = "fp32"
