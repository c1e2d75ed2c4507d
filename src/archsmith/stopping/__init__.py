"""Rules that stop hopeless children early. One file each."""
