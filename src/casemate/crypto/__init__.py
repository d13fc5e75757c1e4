"""Keys, envelopes, segmented AEAD, sealing to a public key, signatures. No network, disk or clock."""
