"""How models and judge were asked, as an evaluation records it: without paths of a guard, and without secrets."""

from pathlib import Path

from hpa_merge.evaluation.guards import Guard
from hpa_merge.evaluation.running import Answering
from hpa_merge.inputs.secrets import shown

__all__ = ["options_of"]


def options_of(how: Answering, judge: str | Path | Guard) -> dict[str, object]:
    """The options of the answers and, if the judge is a :class:`Guard`, of the judge."""
    options: dict[str, object] = {
        "max_new_tokens": how.max_new_tokens,
        "batch_size": how.batch_size,
        "device": how.device,
        "endpoint": None if how.endpoint is None else shown(how.endpoint),
        "max_frames": how.max_frames,
        "chat_template": how.chat_template,
        "template_arg": list(how.template_arg),
        "template_date": how.template_date,
        "trust_remote_code": how.trust_remote_code,
        "base": None if how.base is None else str(how.base),
    }
    if isinstance(judge, Guard):
        options["guard"] = {
            "served": judge.endpoint is not None,
            "template": Path(judge.template).name,
            "arguments": list(judge.arguments),
            "controversial": judge.controversial,
        }
    return options
