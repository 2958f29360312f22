"""Captioning metrics as the COCO evaluation (pycocoevalcap) defines them; `scores.score` computes them by name."""
