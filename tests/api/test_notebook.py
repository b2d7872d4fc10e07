"""The notebook of `studies/`, as somebody runs it: top to bottom, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[2] / "studies" / "quickstart.ipynb"
WIDEST = 115
"""Letters on a line of a message, as rich has it in notebooks."""


@pytest.fixture
def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_it_is_kept_without_outputs(notebook: Any) -> None:
    nbformat.validate(notebook)
    assert [c for c in code_cells(notebook) if c.outputs or c.execution_count] == []


@pytest.mark.faults
def test_it_runs_top_to_bottom(
    notebook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbclient import NotebookClient

    home = {"HOME": tmp_path, "USERPROFILE": tmp_path, "IPYTHONDIR": tmp_path / "ipython"}
    for name, value in home.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("MMSA_TEXT_LEXICON", raising=False)
    where = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=300, resources=where).execute()

    shown: dict[str, dict[str, str]] = {}
    for cell in code_cells(notebook):
        for output in cell.outputs:
            assert output.get("name") != "stderr", output.text
            if output.output_type == "display_data":  # messages, and figures
                assert max(map(len, output.data["text/plain"].splitlines())) <= WIDEST
            shown.setdefault(cell.source.splitlines()[-1], {}).update(output.get("data", {}))
    assert "Nothing is bad." in shown["mmsa.check()"]["text/plain"]
    for last, title in (("session", "Session"), ("study", "Study demo"), ("run", "Run run-")):
        assert f"<b>{title}" in shown[last]["text/html"]
    assert "synthetic data" in shown["run"]["text/html"]
    assert sum("image/png" in data for data in shown.values()) == 4
    assert "'positive': " in shown["run.predict_proba(post.text, post.image_path)"]["text/plain"]
    assert "srcdoc" in shown["run.report()"]["text/html"]
