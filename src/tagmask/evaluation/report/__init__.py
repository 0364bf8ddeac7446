"""One run as one HTML page: scores, confusions, pictures, costs, recipe."""
