"""Read an Nsight Systems SQLite export and say where the time went. Needs no torch."""
