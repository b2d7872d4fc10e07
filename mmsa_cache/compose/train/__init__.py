"""``mmsa train``: from settings to a run."""
