"""Stage two: projections, fusion and head trained on cached features."""
