"""Device and precision of a run, through accelerate; made by `run`, used by `loop`."""

import resource

import torch
from accelerate import Accelerator
from torch import Tensor

from lora_api.spec import LoraTrainingSpec
from lora_trainer.errors import InvalidConfiguration

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
"""Precision in the spec -> number format of the base model."""

OUTPUT_TOLERANCE = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest relative difference of the model's outputs, by its number format, that counts as rounding."""


def check_device(spec: LoraTrainingSpec, *, local_rank: int = 0) -> None:
    """Raises InvalidConfiguration when the process of that number on this machine is to have a GPU and finds none."""
    wanted = spec.parallelism.gpus_per_node
    found = torch.cuda.device_count() if wanted and torch.cuda.is_available() else 0
    if wanted and not found:
        raise InvalidConfiguration(
            f"spec.parallelism.gpusPerNode is {wanted}, but no GPU is to be seen here; set it to 0 to train on the CPU "
            "(`lora run --set spec.parallelism.gpusPerNode=0`)"
        )
    if wanted and local_rank >= found:
        raise InvalidConfiguration(
            f"spec.parallelism.gpusPerNode is {wanted}, but only {found} GPU{'s' if found > 1 else ''} can be seen "
            f"here; set it to {found}"
        )


def make_accelerator(spec: LoraTrainingSpec) -> Accelerator:
    """An accelerator for one device: autocast to the spec's precision, and a gradient scaler for fp16 only.

    Among several processes it is the device with this one's number.

    Raises:
        InvalidConfiguration: a GPU is asked for and there is none.
    """
    check_device(spec)
    on_cpu = spec.parallelism.gpus_per_node == 0
    precision = spec.training.precision
    accelerator = Accelerator(mixed_precision="no" if precision == "fp32" else precision, cpu=on_cpu)
    if precision == "fp16" and spec.training.full_precision:
        accelerator.scaler = HalfGradScaler(accelerator.device.type)
    return accelerator


class HalfGradScaler(torch.amp.GradScaler):
    """A gradient scaler for weights that are kept in fp16, whose gradients torch's own refuses to unscale."""

    def _unscale_grads_(
        self, optimizer: torch.optim.Optimizer, inv_scale: Tensor, found_inf: Tensor, allow_fp16: bool
    ) -> dict[torch.device, Tensor]:
        return super()._unscale_grads_(optimizer, inv_scale, found_inf, True)


def prefer_determinism(*, cpu_threads: int) -> None:
    """Makes torch choose algorithms that give the same result every time, where there are any.

    Not for attention on a GPU: its fast kernels add gradients up in no fixed order when torch only warns, and to
    have it refuse them would end a training at whatever else has no such algorithm.

    The number of threads is given, not that of the machine's cores: sums are split over them, so it changes the
    last bits. One is also the safe choice: on a busy machine two threads that wait for each other were seen to
    make a step of a small model twelve times slower.
    """
    torch.set_num_threads(cpu_threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    # Only for hunting bugs, and it costs time at every allocation.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory in use at once: of the GPU, or of this process when it trains on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
