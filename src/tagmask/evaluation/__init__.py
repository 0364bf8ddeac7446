"""Confusion matrix, protocols, report."""
