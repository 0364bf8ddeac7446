"""Class activation maps: multi-scale, normalised, turned into labels."""
