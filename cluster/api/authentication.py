"""Machines prove who they are with CLUSTER_TOKEN; people as everywhere else."""

from __future__ import annotations

import hmac
from typing import cast

from django.conf import settings
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.settings import api_settings
from rest_framework.views import APIView

from llmplatform.lib.api.permissions import IsOperator


class Machine:
    """``request.user`` of a caller that holds CLUSTER_TOKEN: no person, with no right but to join and to tell its figures."""

    is_authenticated = True
    is_staff = False
    is_superuser = False
    pk = None


class ClusterTokenAuthentication(BaseAuthentication):
    """Stands before the others: another token is theirs to judge."""

    def authenticate(self, request: Request) -> tuple[Machine, str] | None:
        scheme, _space, token = get_authorization_header(request).partition(b" ")
        expected = settings.CLUSTER_TOKEN.encode()
        if scheme.lower() == b"bearer" and expected and hmac.compare_digest(token.strip(), expected):
            return Machine(), "cluster"
        return None

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="api"'


MACHINES_AND_PEOPLE: list[type[BaseAuthentication]] = [
    ClusterTokenAuthentication,
    *cast(
        list[type[BaseAuthentication]], api_settings.DEFAULT_AUTHENTICATION_CLASSES
    ),  # names in settings, classes here
]


class IsMachine(BasePermission):
    def has_permission(self, request: Request, view: APIView) -> bool:
        return isinstance(request.user, Machine)


class IsOperatorOrMachine(IsOperator):
    def has_permission(self, request: Request, view: APIView) -> bool:
        return isinstance(request.user, Machine) or super().has_permission(request, view)
