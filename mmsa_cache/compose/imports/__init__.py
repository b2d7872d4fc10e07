"""``mmsa cache import``: features that somebody else computed."""
