"""``python -m mmsa_cache`` is ``mmsa``."""

from mmsa_cache.cli.main import main

main()
