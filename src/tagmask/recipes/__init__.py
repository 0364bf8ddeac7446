"""Recipes: what decides a run. The packaged ones lie beside this file as METHOD/DATASET.yaml."""
