"""What one run is to do: the record that launcher and child share."""
