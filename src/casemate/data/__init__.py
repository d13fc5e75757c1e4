"""Encrypted files, zones, dataset manifests. Asks a KeyProvider for keys; knows nothing of brokers."""
