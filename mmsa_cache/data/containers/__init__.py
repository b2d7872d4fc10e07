"""Files that hold pictures: Parquet, Arrow, tar. They are never unpacked."""
