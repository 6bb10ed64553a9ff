"""Programs that people use with the service, as they install them: a script each, connected as ``docs/clients.md`` says."""
