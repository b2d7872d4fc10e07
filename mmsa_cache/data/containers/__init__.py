"""Files that hold pictures inside: Parquet, Arrow, tar. Nothing of them is ever unpacked."""
