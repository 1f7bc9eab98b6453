"""The demo's one account. Its password stands on the login page, because it opens nothing."""

USERNAME = "ada"
PASSWORD = "two-kettles-one-pot"
