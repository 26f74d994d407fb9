"""What a world model remembers."""
