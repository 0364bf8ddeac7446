"""Backbones as tokens, decoders, pretrained weights."""
