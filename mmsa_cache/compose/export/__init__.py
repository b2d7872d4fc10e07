"""``mmsa export``: a run as a folder that predicts anywhere."""
