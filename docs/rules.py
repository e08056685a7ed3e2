"""Writes the table of methods.md from the package's table of rules; ``--check`` only says whether it is up to date."""

import sys
from pathlib import Path

from hpa_merge.config import HPAConfig, option_fields
from hpa_merge.methods import RULES, Rule

PAGE = Path(__file__).resolve().parent / "methods.md"

HEAD = (
    "| `--method` | what becomes of a linear weight | the options that it uses (default; what `tune` tries) | samples "
    "| a LoRA stays one |",
    "| --- | --- | --- | --- | --- |",
)


def table() -> str:
    """A row for each rule."""
    rows = [f"| `{rule.name}` | {rule.does} | {_options(rule)} | {_samples(rule)} | {_lora(rule)} |" for rule in RULES]
    return "\n".join([*HEAD, *rows])


def page() -> str:
    """The page with its table made anew."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("| `--method` |"))
    end = next(number for number in range(begin, len(lines)) if not lines[number])
    return "\n".join([*lines[:begin], table(), *lines[end:]]) + "\n"


def _options(rule: Rule) -> str:
    shown, defaults = [], option_fields()
    for name in rule.options:
        flag, default = name.replace("_", "-"), defaults[name][0]
        if isinstance(default, bool):
            shown.append(f"`--no-{flag}`" if default else f"`--{flag}`")
        else:
            value = f"{default:g}" if isinstance(default, float) else str(default)
            shown.append(f"`--{flag}` ({value}{_tried(rule, name)})")
    return ", ".join(shown) or "–"


def _tried(rule: Rule, name: str) -> str:
    """What a tuning tries of an option; empty if it leaves it as it is."""
    if rule.strength is None or name not in rule.strength.options:
        return ""
    return "; " + ", ".join(f"{setting[name]:g}" for setting in rule.strength.settings)


def _samples(rule: Rule) -> str:
    return "both sets" if len(rule.sets) == 2 else " ".join(rule.sets) or "none"


def _lora(rule: Rule) -> str:
    """Whether the result is a LoRA of NEW's rank where NEW is one, and with which switch."""
    if not rule.no_lora(HPAConfig(method=rule.name)):
        return "yes"
    switches = [name for name in rule.options if option_fields()[name][0] is True]
    found = [name for name in switches if not rule.no_lora(HPAConfig(**{"method": rule.name, name: False}))]
    return f"`--no-{found[0]}`" if found else "no"


def main() -> int:
    if "--check" in sys.argv:
        return 0 if PAGE.read_text(encoding="utf-8") == page() else 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
