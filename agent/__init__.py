"""Actor-critic, dreams, trainer, checkpoints and configuration."""
