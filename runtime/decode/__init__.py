"""The host loop that feeds decoders and carries their caches."""
