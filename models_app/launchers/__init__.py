"""How a replica's process is started and ended: on this machine (``local``), later on others as well."""
