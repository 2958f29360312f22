"""Encoded bytes to pixels: decoding, video frames, augmentation."""
