"""One file format a module; each turns a path into a Dataset."""
