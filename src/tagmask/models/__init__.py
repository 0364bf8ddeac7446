"""Networks: backbones as tokens, decoders, and the pretrained weights that they start from."""
