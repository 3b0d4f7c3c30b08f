"""From sound files to log-mel frames: reading, features, augmentation, tables of recordings."""
