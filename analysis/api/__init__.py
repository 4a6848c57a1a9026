"""What a program or a notebook imports: one record of options, and a trace that is opened, examined and reported with it."""
