"""``mmsa cache import``: features of other programs."""
