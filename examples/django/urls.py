"""What is served where."""

import views
from django.urls import path, re_path

urlpatterns = [
    path("articles/<slug:slug>/", views.show_article),
    re_path(r"^archive/(?P<year>[0-9]{4})/$", views.list_archive),
    path("export/", views.export),
    path("drafts/<slug:slug>/", views.show_draft),
]
