"""Pieces of PromQL that the dashboards and the alerts share.

The operator may run twice, and its pods come and go: every value of a training is asked for by namespace and name, as
the largest of what all replicas tell.
"""

CHOSEN = 'namespace=~"$namespace", name=~"$training"'
"""The trainings that are chosen at the head of a dashboard."""
IN_NAMESPACE = 'namespace=~"$namespace"'
TRAINING = "namespace, name"
RELEASE = "namespace, job"
"""Of the scrape: they tell operators apart, as their own metrics have no such labels."""
LEGEND = "{{namespace}}/{{name}}"
RATE = "[$__rate_interval]"


def of_training(metric: str, *, chosen: str = CHOSEN, by: str = TRAINING) -> str:
    """The value of each training, whichever replica of the operator tells it."""
    return f"max by ({by}) ({metric}{{{chosen}}})"


def summed(metric: str, *, chosen: str = IN_NAMESPACE, by: str = "") -> str:
    """The sum over all trainings, each counted once."""
    inner = of_training(metric, chosen=chosen, by=", ".join(filter(None, (TRAINING, by))))
    return f"sum by ({by}) ({inner})" if by else f"sum({inner})"


def or_zero(expression: str) -> str:
    """The expression, or 0 where there is nothing to add up: an empty panel looks as if it were broken."""
    return f"{expression} or vector(0)"


def or_none(expression: str, label: str) -> str:
    """The expression, or 0 of the kind `none` where there is none of any kind."""
    return f'{expression} or on () label_replace(vector(0), "{label}", "none", "", "")'


def trainings_by_phase() -> str:
    """How many trainings are in each phase, as the replicas of each operator count them."""
    return f"sum by (phase) (max by ({RELEASE}, phase) (lora_operator_trainings))"
