"""``mmsa report``: the page of a run."""
