"""What both packages agree on: entities, contracts, manifest, vocabulary, errors. All that `runner` may import."""
