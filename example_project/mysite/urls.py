"""The example's addresses."""

from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import path
from lighthouses import views

urlpatterns = [
    path("", views.all_lights, name="all"),
    path("lights/<slug:slug>/", views.one_light, name="light"),
    path("lights/<slug:slug>/edit/", views.edit_light, name="edit"),
    path("tonight/", views.tonight, name="tonight"),
    path("pole-to-pole/", views.pole_to_pole, name="pole-to-pole"),
    path("counters/", views.live_counters, name="counters"),
    *staticfiles_urlpatterns(),  # for ASGI servers; runserver brings its own
]
