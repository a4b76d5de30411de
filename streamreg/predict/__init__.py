"""A model applied to rows that may not fit in memory: predictions, R² and residuals."""
