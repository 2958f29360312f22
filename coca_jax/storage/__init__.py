"""Bytes on disks and in buckets."""
