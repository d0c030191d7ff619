"""Settings of a Django project whose database uses group commit."""

import os
import pathlib
import sqlite3

DIRECTORY = pathlib.Path(__file__).resolve().parent
EXTENSION = os.environ.get("GROUPCOMMIT_EXTENSION", DIRECTORY.parents[1] / "build/groupcommit.so")

# Registers the VFS "groupcommit" for the whole process. Here, because this is read before Django
# opens any database.
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(str(EXTENSION))
loader.close()  # the VFS stays

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": f"file:{os.environ['DATABASE_FILE']}?vfs=groupcommit",  # Django opens it as a URI
        "OPTIONS": {"timeout": 30},  # writers still take turns
        # Each request opens the file anew. Where a thread serves many, as in gunicorn, None is
        # faster: the thread keeps its connection. Django's own server has a thread for each.
        "CONN_MAX_AGE": 0,
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
INSTALLED_APPS = ["django_site"]
ROOT_URLCONF = "django_site.urls"
SECRET_KEY = "of an example"
ALLOWED_HOSTS = ["127.0.0.1"]
LOGGING_CONFIG = None  # not a line for each request
