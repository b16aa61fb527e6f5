"""One page about a run, in one file that needs nothing else: no script, no request, light and dark."""

from __future__ import annotations

from pathlib import Path
from string import Template

from ..._version import __version__
from ...hypergrad.errors import ConfigError
from ..atomic import write_text
from . import drawn, measured, sections
from .markup import element, joined
from .records import RunRecord
from .stylesheet import STYLE

PAGE = Template(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="generator" content="multilevel $version">
<link rel="icon" href="data:,">
$title
<style>$style</style>
</head>
<body>
$head
<main>
$parts
</main>
$foot
</body>
</html>
"""
)
PARTS = (
    sections.error,
    sections.result,
    drawn.graph,
    drawn.curves,
    measured.timing,
    measured.audit,
    sections.pictures,
    sections.settings,
    sections.remarks,
)


def page(run: RunRecord) -> str:
    """The page of a run.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    return PAGE.substitute(
        version=__version__,
        title=element("title", run.name),
        style=STYLE,
        head=sections.head(run),
        parts=joined(filter(None, (part(run) for part in PARTS))),
        foot=element("footer", f"Written by multilevel {__version__}."),
    )


def save_page(run: RunRecord, path: Path) -> None:
    """Write the page of a run.

    Args:
        run: The run.
        path: The file.

    Raises:
        ConfigError: matplotlib is not installed, or the file cannot be written.
    """
    text = page(run)
    try:
        write_text(path, text)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
