"""Pure functions of tensors: class activation maps, label maps and what refines them. Nothing here has a state."""
