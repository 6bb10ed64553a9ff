"""Whatever a llama-server answers, the gateway answers too: the same requests to both, compared. ``rows.py`` has the requests."""
