"""What an adapter file holds, in numbers; used by `lora inspect`."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_trainer.lora.formats import AdapterModule, read_adapter


@dataclass(frozen=True)
class PartSummary:
    """The modules of one part of the model."""

    modules: int
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    mean_norm: float
    """Mean Frobenius norm of the weight changes."""
    max_norm: float
    max_norm_module: str


@dataclass(frozen=True)
class AdapterSummary:
    """An adapter file in numbers."""

    file: str
    size_bytes: int
    dtypes: tuple[str, ...]
    parameters: int
    parts: dict[str, PartSummary]
    modules: dict[str, dict[str, Any]]
    """For each module its rank, alpha and norm."""
    metadata: dict[str, str]


def summarise(path: Path) -> AdapterSummary:
    """The summary of the adapter in `path`. Raises InvalidAdapterFile."""
    file = read_adapter(path)
    modules = list(file.modules.values())
    norms = {module.key: _norm(module) for module in modules}
    parts: dict[str, list[AdapterModule]] = {}
    for module in modules:
        parts.setdefault("text_encoder" if module.key.startswith("lora_te") else "unet", []).append(module)
    return AdapterSummary(
        file=path.name,
        size_bytes=path.stat().st_size,
        dtypes=tuple(Counter(str(module.down.dtype).removeprefix("torch.") for module in modules)),
        parameters=sum(module.down.numel() + module.up.numel() for module in modules),
        parts={name: _summarise_part(members, norms) for name, members in sorted(parts.items())},
        modules={m.key: {"rank": m.rank, "alpha": m.alpha, "norm": norms[m.key]} for m in modules},
        metadata=dict(sorted(file.metadata.items())),
    )


def _summarise_part(modules: list[AdapterModule], norms: dict[str, float]) -> PartSummary:
    largest = max(modules, key=lambda module: norms[module.key])
    return PartSummary(
        modules=len(modules),
        ranks=tuple(sorted({module.rank for module in modules})),
        alphas=tuple(sorted({module.alpha for module in modules})),
        mean_norm=sum(norms[module.key] for module in modules) / len(modules),
        max_norm=norms[largest.key],
        max_norm_module=largest.key,
    )


def _norm(module: AdapterModule) -> float:
    """Frobenius norm of the weight change, from two (r, r) products: ||B A||^2 = trace((B'B)(A A'))."""
    up, down = module.up.double().flatten(1), module.down.double().flatten(1)
    squared = ((up.T @ up) * (down @ down.T)).sum().clamp_min(0)
    return float(squared.sqrt()) * abs(module.alpha / module.rank)
