"""Masks in the formats people use."""
