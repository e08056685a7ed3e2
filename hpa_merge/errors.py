"""Every error that hpa-merge raises on purpose.

    HPAError                     every error with a sentence for the user
    ├── InputError               the input or the options are wrong: exit status 2
    │   ├── ConfigError          an option is out of its range or contradicts another
    │   ├── CheckpointError      OLD or NEW is missing, broken, or does not fit the other
    │   ├── ChangedError         an input was changed while it was read: no work is kept
    │   ├── CalibrationError     a calibration file, one of its lines, or one of its images
    │   ├── EvaluationError      a test file, an endpoint, a judge, or the results of an evaluation
    │   ├── OutputError          OUT exists, lies inside an input, or cannot be written
    │   ├── PublishError         OUT cannot go to the Hub: it is not whole, or the Hub refuses or cannot be reached
    │   └── StatisticsError      a statistics file is not ours, is damaged, or has a path where it must not lie
    ├── ResourceError            memory ran out: exit status 2 too, because other options can avoid it
    ├── RankError                another process of the run has ended; durable work can be resumed
    └── NumericalError           NaN or infinity, or a curvature that does not factor: exit status 2 too, because the
                                 remedy lies in the user's files or options

A message is one sentence that says what is wrong, where, and what to do. Our own bugs (a unit visited after it was
merged, say) are not here: they raise ``RuntimeError`` and end with exit status 1.
"""

__all__ = [
    "CalibrationError",
    "ChangedError",
    "CheckpointError",
    "ConfigError",
    "EvaluationError",
    "HPAError",
    "InputError",
    "NumericalError",
    "OutputError",
    "PublishError",
    "RankError",
    "ResourceError",
    "StatisticsError",
]


class HPAError(Exception):
    """Base of every error with a sentence for the user; its text is shown unchanged."""


class InputError(HPAError):
    """The input or the options are wrong; the user can fix it."""


class ConfigError(InputError):
    """An option is out of its range, or contradicts another one."""


class CheckpointError(InputError):
    """OLD or NEW is missing, broken, or does not fit the other."""


class ChangedError(InputError):
    """An input was changed while it was read, so the result belongs to neither version."""


class CalibrationError(InputError):
    """A calibration file, one of its lines (named ``file:line``), or one of its images cannot be used."""


class EvaluationError(InputError):
    """A test file, an endpoint, a judge, or a file of results cannot be used."""


class OutputError(InputError):
    """OUT exists, lies inside an input, or cannot be written."""


class PublishError(InputError):
    """OUT cannot be published: it has changed since its merge, or the Hub refuses it or cannot be reached."""


class StatisticsError(InputError):
    """A statistics file is not ours, is damaged, or has a path where it must not lie."""


class ResourceError(HPAError):
    """The memory of the host or of the device is full; durable work can be resumed."""


class RankError(HPAError):
    """Another process of the same run has ended, so this one cannot finish; durable work can be resumed."""


class NumericalError(HPAError):
    """NaN or infinity in a weight or an activation, or a curvature that cannot be factored; names the tensor."""


def extra(name: str) -> str:
    """The command that installs the libraries of an extra, as a remedy in a sentence."""
    return f"pip install '.[{name}]' in hpa-merge's checkout"
