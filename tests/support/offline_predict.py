"""``FOLDER TEXT-MODEL``: extracts, trains, then predicts where every socket raises.

Prints how many rows each way gave, and the exit code for a model that is not on this machine.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from mmsa_cache.cli.main import app
from tests.support.pairs import make_pairs
from tests.support.tiny import tiny_toml


def main() -> None:
    folder, text_model = Path(sys.argv[1]), sys.argv[2]
    make_pairs(folder / "posts", 72)
    (folder / "mmsa.toml").write_text(tiny_toml(text_model, "vit_tiny_patch16_224"))
    os.chdir(folder)
    runner = CliRunner()

    def mmsa(*arguments: str, code: int = 0) -> Any:
        result = runner.invoke(app, [*arguments, "--json"])
        assert result.exit_code == code, (result.output, result.exception)
        return json.loads(result.stdout) if code == 0 else result

    mmsa("extract", "--split", "train")
    few = ("--set", "epochs=1", "--set", "text_dim=16", "--set", "image_dim=16")
    mmsa("train", "--name", "r", "--folds", "2", *few)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a socket was opened")

    for name in ("socket", "create_connection", "getaddrinfo"):
        setattr(socket, name, refuse)
    found = {
        "split": len(mmsa("predict", "--run", "r", "--split", "test")),
        "pair": len(mmsa("predict", "--run", "r", "--text", "a", "--image", "posts/pairs/1.jpg")),
    }
    config = Path("runs/r/config.json")
    raw = json.loads(config.read_text())
    raw["settings"]["text"] |= {"model": "nobody/has-this-model", "weights": "pretrained"}
    config.write_text(json.dumps(raw))
    gone = mmsa("predict", "--run", "r", "--text", "a", "--image", "posts/pairs/1.jpg", code=4)
    assert "nobody/has-this-model" in gone.output
    found["missing model"] = gone.exit_code
    print(json.dumps(found))


if __name__ == "__main__":
    main()
