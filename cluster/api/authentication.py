"""Machines prove who they are with CLUSTER_TOKEN, read as every credential is; people as everywhere else."""

from __future__ import annotations

import hmac
from typing import cast

from django.conf import settings
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.settings import api_settings
from rest_framework.views import APIView

from llmplatform.lib import credentials
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
        try:
            token = credentials.token_of_request(request._request)
        except credentials.NotAuthenticated as error:
            raise AuthenticationFailed from error
        expected = settings.CLUSTER_TOKEN
        if not token or not expected or not hmac.compare_digest(token.encode(), expected.encode()):
            return None
        browser = getattr(request._request, "user", None)
        if browser is not None and browser.is_authenticated:
            raise AuthenticationFailed  # a machine has no session: this is somebody else's
        return Machine(), "cluster"

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
