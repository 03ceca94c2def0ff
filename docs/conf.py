"""How Sphinx makes a site of this folder: `make docs`. It loads nothing from the network, when built or when read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

project = "Universal Data Sync"
extensions = ["myst_parser"]
exclude_patterns = ["_static", "pictures"]
myst_heading_anchors = 4

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}


class PicturesInPage(SphinxPostTransform):
    """Put each SVG into its page, where it follows the page's light or dark mode; an <img> would follow the system's."""

    default_priority = 5
    formats = ("html",)

    def run(self, **_: Any) -> None:
        """Replace the image nodes that name an SVG."""
        folder = Path(self.app.srcdir)
        for image in list(self.document.findall(nodes.image)):
            path = folder / str(image["uri"])
            if path.suffix == ".svg" and path.is_file():
                text = re.sub(r"<\?xml.*?\?>\s*", "", path.read_text(encoding="utf-8"))
                image.replace_self(nodes.raw("", f'<div class="picture-frame">{text}</div>', format="html"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_post_transform(PicturesInPage)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
