"""Image tags in, pixel masks out."""
