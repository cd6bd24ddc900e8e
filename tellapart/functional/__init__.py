"""Pure functions of tensors: losses, geometry, exact log-sum-exp and top-k, mutual information."""
