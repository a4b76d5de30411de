"""The scikit-learn face: estimators, and functions that make or take one."""
