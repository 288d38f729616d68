"""How Sphinx builds these pages: ``python -m sphinx -W --keep-going -n -b html docs .cache/docs``.

It reads files of the repository and nothing else: no network, and no import of the package.
"""

import re
from pathlib import Path

_SOURCE = Path(__file__).parent.parent / "django_momento_http" / "__init__.py"

project = "django_momento_http"
author = "The django_momento_http developers"
copyright = author  # noqa: A001 - Sphinx's name
release = re.findall(r'^__version__ = "(.+)"$', _SOURCE.read_text(), re.MULTILINE)[0]
extensions = ["myst_parser"]
# Links to headings are written as GitHub makes them, so that they work there, too.
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False
