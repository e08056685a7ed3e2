"""Every error that hpa-merge raises on purpose.

    HPAError                     anything that we say in a sentence of our own
    ├── InputError               the input or the options are wrong: exit status 2
    │   ├── ConfigError          an option is out of its range or contradicts another
    │   ├── CheckpointError      OLD or NEW is missing, broken, or not what it has to be
    │   ├── ChangedError         an input was changed while it was read: nothing of the work is kept
    │   ├── CalibrationError     a calibration file, one of its lines, or one of its images
    │   ├── EvaluationError      a test file, an endpoint, a judge, or the results of an evaluation
    │   ├── OutputError          OUT exists, lies inside an input, or cannot be written
    │   ├── PublishError         OUT cannot go to the Hub: it is not whole, or the Hub refuses or is not in reach
    │   └── StatisticsError      a statistics file is none, is damaged, or may not lie where it is to lie
    ├── ResourceError            memory ran out: exit status 2 too, because another option lets the merge go on
    └── NumericalError           NaN or infinity met on the way, or a curvature that does not factor: exit status 2
                                 too, because the remedy lies with the user's files or options

A message is one sentence that says what is wrong, where, and what to do. Mistakes of ours (a unit visited after it was
merged, say) are not here: they are ``RuntimeError`` and end with exit status 1.
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
    "ResourceError",
    "StatisticsError",
]


class HPAError(Exception):
    """Base of every error that is raised with a sentence for the user; its text is shown as it is."""


class InputError(HPAError):
    """The input or the options are wrong; the user can fix it."""


class ConfigError(InputError):
    """An option is out of its range, or contradicts another one."""


class CheckpointError(InputError):
    """OLD or NEW is missing, broken, or does not fit the other."""


class ChangedError(InputError):
    """An input was changed while it was read; what was made of it is of neither version."""


class CalibrationError(InputError):
    """A calibration file, one of its lines (named ``file:line``), or one of its images cannot be used."""


class EvaluationError(InputError):
    """A test file, an endpoint, a judge, or a file of results cannot be used."""


class OutputError(InputError):
    """OUT exists, lies inside an input, or cannot be written."""


class PublishError(InputError):
    """OUT cannot be published: it is not as its merge wrote it, or the Hub refuses it or cannot be reached."""


class StatisticsError(InputError):
    """A statistics file is none of ours, is damaged, or may not lie where it is to lie."""


class ResourceError(HPAError):
    """The memory of the host or of the device is full; what is durable can be resumed."""


class NumericalError(HPAError):
    """NaN or infinity in a weight or an activation, or a curvature that cannot be factored; names the tensor."""
