"""The pages that taskfit writes: self-contained HTML from the templates beside this file."""

from __future__ import annotations

from pathlib import Path

__all__ = ["render_page"]


def render_page(template: str, view: object) -> str:
    """Return one self-contained page: no script, no network, light and dark, everything escaped.

    Args:
        template: name of a template in this folder.
        view: what the template calls ``view``.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(view=view) + "\n"
