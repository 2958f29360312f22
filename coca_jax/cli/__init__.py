"""Code shared by the command lines."""
