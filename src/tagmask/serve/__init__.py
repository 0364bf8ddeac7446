"""The page: try a run on photographs, compare two runs, review a folder of masks."""
