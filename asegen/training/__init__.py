"""Training: recipes, Lightning module, sampler. Imported only when something is trained."""
