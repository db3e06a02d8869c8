"""The configuration: its schema, how it is composed, checked and explained. The only package that knows Hydra."""
