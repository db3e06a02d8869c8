"""One experiment from configuration to result. The only package that knows Lightning."""
