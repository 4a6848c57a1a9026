"""Times of runs over time: as a page without scripts, and in a terminal."""
