#!/usr/bin/env python3
"""Compare the package's stubs with the package itself, as ``mypy.stubtest`` does.

The engines import Django's session model, so Django is set up first.
"""

import sys

import django
from django.conf import settings
from mypy import stubtest

settings.configure(
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
    ],
    SECRET_KEY="only for importing the engines",
)
django.setup()
sys.argv[1:] = ["django_session_rs", *sys.argv[1:]]
sys.exit(stubtest.main())
