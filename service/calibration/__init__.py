"""Calibrations: error rates by similarity, measured on people and read by decision.py.

`measure` makes one from embeddings and whose they are; it imports numpy alone, so that the service
measures on its user's people exactly as training measures on those of the shipped models.
"""
