//! The session object against traces of Django's.
