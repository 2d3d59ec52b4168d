"""How weights are updated: optimizers, their groups, learning-rate schedules and the moving average."""

from lora_trainer.optim.average import Average
from lora_trainer.optim.groups import TrainedTensor, group_parameters, learning_rates, set_rates
from lora_trainer.optim.optimizers import evaluating, make_optimizer, optimizer_class_name
from lora_trainer.optim.schedules import rate_factor

__all__ = [
    "Average",
    "TrainedTensor",
    "evaluating",
    "group_parameters",
    "learning_rates",
    "make_optimizer",
    "optimizer_class_name",
    "rate_factor",
    "set_rates",
]
