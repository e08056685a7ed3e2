"""What MkDocs does beside the pages: files of the repository as pages, links to them, and a section for each command.

On a code host a link such as ``../benchmarks/README.md`` leads to that file. In the site, the Markdown files that are
linked to are pages under ``repository/``, with their pictures; a link to any other file of the repository becomes its
text, for the site has no place for it.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent

FOLDER = "repository"
"""Where in the site the files of the repository are."""

LINKED = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    "examples/ci_regression/README.md",
    "examples/ci_workflow/README.md",
    "examples/continual_tuning/README.md",
    "examples/continual_tuning/results/*.md",
    "examples/continual_tuning/results/*.png",
    "examples/monthly_retune/README.md",
)
"""Files that are pages and pictures of the site, although they do not lie in docs/."""

COMMANDS = "<!-- commands -->"

LINK = re.compile(r"(!?)\[((?:[^][]|\[[^][]*\])*)\]\(([^()\s]+)\)")

NO_DEFAULT = "<code>Sentinel.UNSET</code>"
"""What mkdocs-click makes of an option that has no default, with click 8.3 and later."""

SECTION = """
::: mkdocs-click
    :module: hpa_merge.cli
    :command: {variable}
    :prog_name: {title}
    :depth: 1
    :style: table
"""


def on_files(files: Files, config: Any) -> Files:
    """Add the files of the repository that pages link to."""
    for pattern in LINKED:
        for path in sorted(ROOT.glob(pattern)):
            source = f"{FOLDER}/{path.relative_to(ROOT).as_posix()}"
            files.append(File.generated(config, source, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links that leave docs/ into links in the site, and the marker into the reference of the commands."""
    if COMMANDS in markdown:
        markdown = markdown.replace(COMMANDS, reference())
    source = page.file.src_uri
    here = source.removeprefix(f"{FOLDER}/") if source.startswith(f"{FOLDER}/") else f"docs/{source}"
    return re.sub(LINK, lambda found: _link(found, here, source, files), markdown)


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Say nothing where an option has no default."""
    return html.replace(NO_DEFAULT, "")


def reference() -> str:
    """A section for the merge and for each further command, which mkdocs-click fills."""
    from hpa_merge import cli

    names = {id(value): name for name, value in vars(cli).items()}
    commands = {"hpa-merge": cli.merge_command} | {f"hpa-merge {name}": cli.COMMANDS[name] for name in cli.COMMANDS}
    return "".join(SECTION.format(title=title, variable=names[id(command)]) for title, command in commands.items())


def _link(found: re.Match[str], here: str, source: str, files: Files) -> str:
    """A link of the file ``here`` of the repository, which is ``source`` in the site."""
    mark, text, target = found.groups()
    path, sign, anchor = target.partition("#")
    if not path or ":" in path:
        return found[0]
    place = posixpath.normpath(posixpath.join(posixpath.dirname(here), path))
    if place == "README.md":
        place = "docs/index.md"
    elif place.startswith("examples/") and (ROOT / place).is_dir():
        place += "/README.md"
    inside = place.removeprefix("docs/") if place.startswith("docs/") else f"{FOLDER}/{place}"
    if files.get_file_from_path(inside) is None:
        if (ROOT / place).exists():
            return text
        return found[0]  # MkDocs says what is wrong with it
    return f"{mark}[{text}]({posixpath.relpath(inside, posixpath.dirname(source) or '.')}{sign}{anchor})"
