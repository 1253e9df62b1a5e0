"""What tests share. pytest puts tests/ on the path (pyproject.toml), so that it is `support`."""
