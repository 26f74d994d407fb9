"""World models compared under one agent."""
