"""The least that Django needs."""

import os

ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
MIDDLEWARE = [
    "rvh_trace.django.TracingMiddleware",  # first: route and exceptions for the span of the request
    "django.middleware.common.CommonMiddleware",
]
ROOT_URLCONF = "urls"
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "an example keeps no secrets")
USE_TZ = True
