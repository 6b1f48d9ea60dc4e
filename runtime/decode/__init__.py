"""The host loop feeds decoders and carries their caches."""
