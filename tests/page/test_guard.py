"""Whom the page answers, by the name that is asked for."""

from __future__ import annotations

import pytest

from mmsa_cache.page.guard import is_own_host

STRANGE = (
    "",
    "[::1",
    "[x]:1",
    "localhost@evil.example",
    "evil.example",
    "evil.example:7860",
    "localhost.evil.example",
    "127.0.0.1.nip.io",
)


@pytest.mark.parametrize(
    ("bound", "own", "foreign"),
    [
        ("127.0.0.1", ("127.0.0.1", "localhost:7860", "LOCALHOST", "[::1]:80"), ("192.168.1.5",)),
        ("localhost", ("localhost", "127.0.0.1:1"), ("10.0.0.1:7860",)),
        ("0.0.0.0", ("192.168.1.5:7860", "localhost", "[fe80::1]"), ()),
        ("::", ("[::1]", "10.1.2.3"), ()),
        ("box.example", ("box.example:7860", "10.0.0.1"), ("other.example",)),
    ],
)
def test_names_of_other_sites_are_not_its_own(
    bound: str, own: tuple[str, ...], foreign: tuple[str, ...]
) -> None:
    assert all(is_own_host(host, bound) for host in own)
    assert not any(is_own_host(host, bound) for host in (*foreign, *STRANGE))
