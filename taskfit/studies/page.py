"""The pages that taskfit writes: self-contained HTML from the templates beside this file."""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskfit.tasks.task import Value

__all__ = ["render_page"]


def render_page(
    template: str, view: object, *, data: Mapping[str, Value] | None = None, script: str = "", library: str = ""
) -> str:
    """Return one self-contained page: no network, light and dark, everything escaped.

    Args:
        template: name of a template in this folder.
        view: what the template calls ``view``.
        data: for the scripts, as JSON; the template calls it ``data``.
        script: the page's own; it must not hold ``</script``.
        library: what the script unpacks and runs; the template calls it ``packed``. A browser runs these two alone.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "separators": (",", ":"), "ensure_ascii": False}
    return (
        environment.get_template(template).render(
            view=view,
            data=data,
            script=Markup(script),
            packed=_packed(library),
            policy=_policy([text for text in (script, library) if text]),
        )
        + "\n"
    )


def _packed(text: str) -> str:
    """Return a text as gzip in base64; the same text always gives the same letters."""
    return base64.b64encode(gzip.compress(text.encode("utf-8"), mtime=0)).decode("ascii")


def _policy(scripts: Sequence[str]) -> str:
    """Return what a browser may load and run: nothing but these scripts, known by their SHA-256."""
    allowed = ["default-src 'none'", "style-src 'unsafe-inline'", "img-src data:"]
    if scripts:
        digests = (hashlib.sha256(script.encode("utf-8")).digest() for script in scripts)
        named = " ".join(f"'sha256-{base64.b64encode(digest).decode('ascii')}'" for digest in digests)
        allowed.append(f"script-src {named}")
    return "; ".join(allowed)
