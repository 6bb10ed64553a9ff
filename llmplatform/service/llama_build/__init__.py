"""``--build-llama``: a llama-server compiled for this very processor, tried and measured before it is used."""
