"""What the dashboard in Django's admin shows. ``admin.py`` has its views; docs/how-to/dashboard.md describes it."""
