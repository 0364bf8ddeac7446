"""The label ids that mean the same in every label map; here, since this module needs neither torch nor numpy."""

IGNORE = 255
"""The id of pixels that no loss and no score counts."""
