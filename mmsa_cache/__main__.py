"""``python -m mmsa_cache`` is ``mmsa``."""

from .cli.main import main

main()
