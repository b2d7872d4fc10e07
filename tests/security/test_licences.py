"""``make lint`` fails on a package whose licence is not permissive."""

from __future__ import annotations

import pytest

from tests import audit

FREE = (
    *(
        "MIT",
        "Apache Software License",
        "BSD License, Apache Software License",
        "2-clause BSD License",
    ),
    *("MIT OR GPL-3.0-only", "Apache-2.0 WITH LLVM-exception AND BSL-1.0", "ISC License (ISCL)"),
)
BOUND = (
    *("GPL-3.0-only", "MIT AND LGPL-2.1-or-later", "MIT License, GNU General Public License v3"),
    *(
        "AGPL-3.0",
        "CC-BY-NC-4.0",
        "Proprietary",
        "(not stated)",
        "",
        "MIT-like",
        "SSPL-1.0",
        "MPL-2.0",
    ),
)


def test_licences_are_told_apart() -> None:
    assert [said for said in FREE if not audit.is_permissive(said)] == []
    assert [said for said in BOUND if audit.is_permissive(said)] == []
    assert audit.is_permissive("MPL-2.0 AND MIT", file_wide=True)


def test_a_licence_that_binds_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert audit.refused() == []
    said = {"tqdm": "MPL-2.0", "numpy": "MPL-2.0", "torch": "GPL-3.0-only"}
    monkeypatch.setattr(audit, "licence", lambda name: said.get(name, "MIT"))
    assert audit.refused() == ["numpy: MPL-2.0", "torch: GPL-3.0-only"]
