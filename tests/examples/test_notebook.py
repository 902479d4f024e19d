"""The notebook in examples/ runs from its first cell to its last, as in a kernel."""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.notebook import be_in_a_notebook

from techforge.notebook import html_of

if TYPE_CHECKING:
    import pytest

NOTEBOOK = json.loads((Path(__file__).parents[2] / "examples" / "notebook.ipynb").read_text("utf-8"))
CELLS = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


async def run(cell: str, names: dict[str, Any]) -> object:
    """Run a cell, which may await, and return the value of its last line if it is an expression."""
    tree = ast.parse(cell)
    last = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None  # type: ignore[attr-defined]
    for part, mode in ((tree, "exec"), (last, "eval")):
        if part is not None:
            code = compile(part, "<cell>", mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            value = eval(code, names)  # noqa: S307 - our own notebook
            value = await value if inspect.iscoroutine(value) else value
    return value if last is not None else None


async def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows a job, a bar, the video and its player. No saved output has a signature."""
    shown = be_in_a_notebook(monkeypatch)
    for name in ("TFI_API_KEY", "TFI_BASE_URL"):
        # Set here, so that monkeypatch restores the variables that the notebook sets.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    names: dict[str, Any] = {}
    values: list[Any] = []
    try:
        values += [await run(cell.replace("job_seconds=3", "job_seconds=0.2"), names) for cell in CELLS]
    finally:
        names["client"].close()
        names["mock"].__exit__(None, None, None)
    nothing, job, video, player, sizes = values
    assert nothing is None
    assert "queued" in html_of(job)
    assert "done" in html_of(video)
    assert "base64,AAAA" in player._repr_html_()
    assert sizes == [video.size] * 3
    assert [kind for kind, _ in shown].count("display") == 4
    assert sum("done after" in bundle["text/plain"] for _, bundle in shown) == 4
    saved = [repr(shown), *(repr(value) for value in values)]
    saved += [html_of(job), html_of(video), player._repr_html_()]
    assert "signature" not in "".join(saved)
    assert "signature" in video.url


def test_the_notebook_has_no_outputs() -> None:
    """The outputs of a run are not committed."""
    for cell in NOTEBOOK["cells"]:
        assert cell["id"]
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
