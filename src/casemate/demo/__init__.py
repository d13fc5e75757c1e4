"""The main job from nothing to a decrypted result, and the attacks that fail."""
