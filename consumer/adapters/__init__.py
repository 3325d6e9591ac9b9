"""The outside world, one file per thing. Adapters decide nothing and never import each other."""
