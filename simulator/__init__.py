"""A fleet that never was: seen as a Source, moved as a Cluster, known to the last GPU-second."""
