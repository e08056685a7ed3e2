"""A tuning with its files, and settings for it."""

from dataclasses import dataclass
from pathlib import Path

from cases import TinyCase
from evaluation_cases import status

TWO = """
- {name: all-old, p-max: 100, p-min: 100, focus-ratio: 1, orthogonal: false}
- {name: all-new, p-max: 0, p-min: 0, orthogonal: false}
"""
SETTINGS = """
- {name: all-old, p-max: 100, p-min: 100, focus-ratio: 1, orthogonal: false}
- {name: half, p-max: 50, p-min: 50, focus-ratio: 1, orthogonal: false}
- {name: all-new, p-max: 0, p-min: 0, orthogonal: false}
"""
ONE = "- {name: all-new, p-max: 0, p-min: 0, orthogonal: false}"
TOKENS = 8


@dataclass
class Job:
    """A tuning with its files, that would succeed."""

    case: TinyCase
    folder: Path
    safety: Path
    task: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def run(self, *options: object, settings: str | None = SETTINGS) -> int | str | None:
        """The exit status."""
        words: list[object] = ["tune", self.case.old, self.case.new, "-o", self.out, "--device", "cpu"]
        words += ["--safety-calib", self.case.safety, "--task-calib", self.case.task, "--max-new-tokens", TOKENS]
        words += ["--safety-test", f"s={self.safety}", "--task-test", f"t={self.task}", "--judge", "own_judge:unsafe"]
        if settings is not None:
            (self.folder / "settings.yaml").write_text(settings)
            words += ["--settings", self.folder / "settings.yaml"]
        return status(*words, *options)

    def left(self) -> list[str]:
        """What lies in the folder beside the files of the test."""
        return sorted(path.name for path in self.folder.iterdir() if path.name.startswith("out"))
