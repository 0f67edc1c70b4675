"""Audio as numbers: coding, resampling, levels, sound files, and the thread that keeps what was said."""
