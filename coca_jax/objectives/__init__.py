"""What a run trains for: the batch, the loss, and the trainable parameters."""
