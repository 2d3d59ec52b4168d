"""Errors of the operator, one class per who must act; raised everywhere, caught in `controller` and `__main__`.

OperatorError
├── SettingsError        the cluster's operator: environment or profiles file, at start
├── ClusterUnavailable   nobody: the API server does not answer or is busy, tried again later
├── Conflict             nobody: somebody wrote first, read again
├── LeadershipLost       nobody: another operator goes on, this process ends and is started again
└── Refused              user or cluster's operator: the API server says no, shown in the status and tried again
"""


class OperatorError(Exception):
    """Everything that the operator knows how to answer."""

    kind = "operator"
    """Label of the error metric."""


class SettingsError(OperatorError):
    """The environment or the profiles file is wrong; the message names the variable or field."""

    kind = "settings"


class ClusterUnavailable(OperatorError):
    """The API server did not answer or asked for patience."""

    kind = "cluster_unavailable"

    def __init__(self, message: str, *, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Conflict(OperatorError):
    """The object was written by somebody else since it was read, or is there already."""

    kind = "conflict"


class LeadershipLost(OperatorError):
    """This operator may no longer act: its lease has run out, or another one holds it."""

    kind = "leadership_lost"


class Refused(OperatorError):
    """The API server refuses the request; the message holds its words."""

    kind = "refused"
