"""What tasks print, on its way from the process of a run to its worker."""
