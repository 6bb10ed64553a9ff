"""Where our pages write figures and dates otherwise than Django does for a language (FORMAT_MODULE_PATH)."""
