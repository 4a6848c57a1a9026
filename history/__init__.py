"""The numbers of finished runs, in a database that outlives their folders."""
