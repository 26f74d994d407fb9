"""Model-free agents of Stable-Baselines3."""
