"""The console's own pages: the dashboard and what stands around every page. Each app's tables are in its ``admin.py``."""
