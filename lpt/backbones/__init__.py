"""Frozen Hugging Face models, split at layer k. The only package that knows where transformers keeps things."""
