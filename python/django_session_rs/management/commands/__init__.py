"""Management commands of django_session_rs."""
