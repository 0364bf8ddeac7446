"""Refinement of maps: PAR, dense CRF, dense energy, affinity."""
