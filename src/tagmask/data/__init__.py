"""Tagged images: readers, the data set, views, the synthetic set."""
