"""Labelling on many machines: sources cut into pieces, workers that label them, output shards that are written once."""
