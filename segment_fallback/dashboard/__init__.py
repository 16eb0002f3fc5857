"""What the dashboard in Django's admin shows. ``admin.py`` has its views; docs/dashboard.md describes it."""
