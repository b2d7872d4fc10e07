"""``python -m mmsa_cache`` is ``mmsa``."""

from .cli import main

main()
