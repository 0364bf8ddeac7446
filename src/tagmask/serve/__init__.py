"""The page in the browser: it tries a run on photographs, compares two runs, and reviews a folder of masks."""
