"""How many devices trained, from accelerate's counts. Used by the readers of command lines and of GUI settings."""

from lora_trainer.migration.unusable import UnusableSettings


def parallelism_fields(processes: int, machines: int) -> dict[str, int]:
    """The fields of `spec.parallelism` that are not 1, for accelerate's `num_processes`, which counts those of all
    machines, and `num_machines`; 0 stands for 1.

    Raises:
        UnusableSettings: the machines cannot have equally many.
    """
    processes, machines = max(1, processes), max(1, machines)
    if processes % machines:
        raise UnusableSettings(
            f"num_processes is {processes}, but must be a multiple of num_machines, which is {machines}; it counts the "
            "processes of all machines"
        )
    counts = {"parallelism.gpusPerNode": processes // machines, "parallelism.nodes": machines}
    return {field: count for field, count in counts.items() if count > 1}
