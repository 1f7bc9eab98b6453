"""Session engines, named as Django's: ``SESSION_ENGINE = "django_session_rs.backends.db"``."""
