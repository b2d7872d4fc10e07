"""Builds ``wordnet.txt.gz`` from Princeton WordNet's data files (Debian: package wordnet-base).

    python -m extract.inputs.build_synonyms /usr/share/wordnet extract/inputs/wordnet.txt.gz

A line holds a word, a tab and its synonyms, separated by commas; all in lower case, sorted.
"""

from __future__ import annotations

import gzip
import re
import sys
from collections import defaultdict
from pathlib import Path

_WORD = re.compile(r"[a-z]+(?:['-][a-z]+)*")


def build(wordnet: Path) -> bytes:
    """Collects the single-word lemmas that share a synset.

    Args:
        wordnet: Folder with ``data.noun``, ``data.verb``, ``data.adj`` and ``data.adv``.

    Returns:
        The gzipped table. Equal input gives equal bytes.
    """
    table: dict[str, set[str]] = defaultdict(set)
    for part in ("noun", "verb", "adj", "adv"):
        for line in (wordnet / f"data.{part}").read_text(encoding="ascii").splitlines():
            if line.startswith("  "):
                continue  # the licence's lines
            columns = line.split(" ")
            count = int(columns[3], 16)
            lemmas = {re.sub(r"\(\w+\)$", "", w).lower() for w in columns[4 : 4 + 2 * count : 2]}
            words = {word for word in lemmas if _WORD.fullmatch(word)}
            for word in words:
                table[word] |= words - {word}
    lines = [
        f"{word}\t{','.join(sorted(others))}" for word, others in sorted(table.items()) if others
    ]
    return gzip.compress("\n".join(lines).encode(), 9, mtime=0)


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(build(Path(sys.argv[1])))
