"""Show one run on one HTML page: scores, confusions, pictures, costs, recipe."""
