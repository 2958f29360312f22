"""Training images that evaluation datasets contain, too."""
