"""The service does what its description (/api/schema) says, whoever asks, and tells nobody what is another's: schemathesis."""
