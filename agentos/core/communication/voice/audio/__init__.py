"""Audio processing: coding, resampling, levels and sound files."""
