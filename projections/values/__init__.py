"""Values that several tables derive: masked previews, words, prices, fingerprints."""
