"""Paths of the chat page."""

from __future__ import annotations

from django.urls import path

from chat import views

app_name = "chat"

urlpatterns = [
    path("chat/", views.page, name="home"),
    path("chat/list", views.conversation_list, name="list"),
    path("chat/models", views.models, name="models"),
    path("chat/<uuid:conversation_id>", views.page, name="conversation"),
    path("chat/<uuid:conversation_id>/messages", views.messages, name="messages"),
    path("chat/<uuid:conversation_id>/rename", views.rename, name="rename"),
    path("chat/<uuid:conversation_id>/delete", views.delete, name="delete"),
]
