//! Who a session's user is, as `django.contrib.auth` says.

pub mod hashers;
