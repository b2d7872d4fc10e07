"""The feature cache on disk: sealed HDF5 shards and their manifest."""
