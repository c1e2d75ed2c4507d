"""What every page of archsmith is made of: HTML by construction, its style, plots as inline SVG, one whole file."""
