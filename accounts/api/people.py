"""People, groups and invites, for administrators."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import Q
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import groups, invites, people
from accounts.api.entering import valid
from accounts.api.key_serializers import KeySerializer, KeysSerializer, NewKeySerializer, SecretKeySerializer
from accounts.api.keys import create_for
from accounts.api.people_serializers import (
    GroupFieldsSerializer,
    GroupSerializer,
    GroupsSerializer,
    InviteSerializer,
    InvitesSerializer,
    NewGroupSerializer,
    NewInviteSerializer,
    PersonChangesSerializer,
    PersonSerializer,
    PersonsPage,
    PersonsQuery,
    SecretInviteSerializer,
)
from accounts.api.profile import caller
from accounts.models import ApiKey, Group, Invite, User
from llmplatform.lib.api.permissions import IsAdministrator
from llmplatform.lib.api.serializers import answers

TAG = ["people"]
NO_STORE = {"Cache-Control": "no-store"}


def _named_group(name: str | None) -> Group | None:
    """None and "" are no group."""
    if not name:
        return None
    found = Group.objects.filter(name__iexact=name).first()
    if found is None:
        raise ValidationError({"group": [_("There is no such group.")]})
    return found


class UsersView(APIView):
    permission_classes = [IsAdministrator]

    @extend_schema(
        tags=TAG,
        summary="People",
        description="By name; `next` of one page is `after` of the following one.",
        parameters=[PersonsQuery],
        responses=answers({200: PersonsPage}, 400, 401, 403),
        operation_id="users",
    )
    def get(self, request: Request) -> Response:
        asked = valid(PersonsQuery(data=request.query_params.dict()))
        rows = people.persons().select_related("wallet", "group").order_by("username")
        if "waiting" in asked:
            rows = rows.filter(waiting=asked["waiting"])
        if "group" in asked:
            rows = rows.filter(group=_named_group(asked["group"]))
        if asked.get("q"):
            rows = rows.filter(Q(username__icontains=asked["q"]) | Q(email__icontains=asked["q"]))
        if asked.get("after"):
            rows = rows.filter(username__gt=asked["after"])
        found = list(rows[: asked["limit"] + 1])
        shown = found[: asked["limit"]]
        more = len(found) > len(shown)
        return Response(
            {"results": PersonSerializer(shown, many=True).data, "next": shown[-1].username if more else None}
        )


class UserView(APIView):
    permission_classes = [IsAdministrator]

    @extend_schema(
        tags=TAG, summary="One person", responses=answers({200: PersonSerializer}, 401, 403, 404), operation_id="user"
    )
    def get(self, request: Request, user_id: int) -> Response:
        return Response(PersonSerializer(_person(user_id)).data)

    @extend_schema(
        tags=TAG,
        summary="Change a person's role, group, access or limits",
        request=PersonChangesSerializer,
        responses=answers({200: PersonSerializer}, 400, 401, 403, 404, 413),
        operation_id="user_change",
    )
    def patch(self, request: Request, user_id: int) -> Response:
        user = _person(user_id)
        changes = valid(PersonChangesSerializer(data=request.data))
        _change(user, changes)
        return Response(PersonSerializer(_person(user_id)).data)


def _person(user_id: int) -> User:
    return get_object_or_404(people.persons().select_related("wallet", "group"), pk=user_id)


@transaction.atomic
def _change(user: User, changes: dict[str, Any]) -> None:
    if "group" in changes:
        groups.move(user, _named_group(changes.pop("group")))
    if "role" in changes:
        people.set_role(user, changes.pop("role"))
    if "active" in changes:
        set_access = people.unblock_user if changes.pop("active") else people.block_user
        set_access(user)
    if changes:
        people.set_limits(user, changes)


class ApproveView(APIView):
    permission_classes = [IsAdministrator]

    @extend_schema(
        tags=TAG,
        summary="Let somebody in who registered and waits",
        request=None,
        responses=answers({200: PersonSerializer}, 401, 403, 404),
        operation_id="user_approve",
    )
    def post(self, request: Request, user_id: int) -> Response:
        people.approve_user(_person(user_id))
        return Response(PersonSerializer(_person(user_id)).data)


# -- groups ------------------------------------------------------------------------------------------------------------


class GroupsView(APIView):
    permission_classes = [IsAdministrator]

    @extend_schema(
        tags=TAG, summary="Groups", responses=answers({200: GroupsSerializer}, 401, 403), operation_id="groups"
    )
    def get(self, request: Request) -> Response:
        return Response({"groups": GroupSerializer(Group.objects.order_by("name"), many=True).data})

    @extend_schema(
        tags=TAG,
        summary="Make a group",
        request=NewGroupSerializer,
        responses=answers({201: GroupSerializer}, 400, 401, 403, 413),
        operation_id="group_create",
    )
    def post(self, request: Request) -> Response:
        group = groups.create_group(valid(NewGroupSerializer(data=request.data)))
        return Response(GroupSerializer(group).data, status=201)


class GroupView(APIView):
    permission_classes = [IsAdministrator]

    @extend_schema(
        tags=TAG, summary="One group", responses=answers({200: GroupSerializer}, 401, 403, 404), operation_id="group"
    )
    def get(self, request: Request, group_id: int) -> Response:
        return Response(GroupSerializer(get_object_or_404(Group, pk=group_id)).data)

    @extend_schema(
        tags=TAG,
        summary="Change a group",
        request=GroupFieldsSerializer,
        responses=answers({200: GroupSerializer}, 400, 401, 403, 404, 413),
        operation_id="group_change",
    )
    def patch(self, request: Request, group_id: int) -> Response:
        group = get_object_or_404(Group, pk=group_id)
        changed = groups.update_group(group, valid(GroupFieldsSerializer(data=request.data)))
        return Response(GroupSerializer(changed).data)

    @extend_schema(
        tags=TAG,
        summary="Remove a group",
        description="Only while nobody is in it, no invite leads to it and it has no keys of its own.",
        responses=answers({204: None}, 400, 401, 403, 404),
        operation_id="group_remove",
    )
    def delete(self, request: Request, group_id: int) -> Response:
        groups.delete_group(get_object_or_404(Group, pk=group_id))
        return Response(status=204)


class GroupKeysView(APIView):
    """Keys for services: they belong to the group, and what they use is paid by its own account."""

    permission_classes = [IsAdministrator]

    @extend_schema(
        tags=TAG,
        summary="A group's own keys",
        responses=answers({200: KeysSerializer}, 401, 403, 404),
        operation_id="group_keys",
    )
    def get(self, request: Request, group_id: int) -> Response:
        group = get_object_or_404(Group, pk=group_id)
        rows = ApiKey.objects.select_related("user").filter(user__service_of=group).order_by("-pk")
        return Response({"keys": KeySerializer(rows, many=True).data})

    @extend_schema(
        tags=TAG,
        summary="Make a key for a service of a group",
        request=NewKeySerializer,
        responses=answers({201: SecretKeySerializer}, 400, 401, 403, 404, 413),
        operation_id="group_key_create",
    )
    def post(self, request: Request, group_id: int) -> Response:
        group = get_object_or_404(Group, pk=group_id)
        valid(NewKeySerializer(data=request.data))  # before an account is made for it
        return create_for(groups.service_account(group), request)


# -- invites -----------------------------------------------------------------------------------------------------------


class InvitesView(APIView):
    permission_classes = [IsAdministrator]

    @extend_schema(
        tags=TAG, summary="Invites", responses=answers({200: InvitesSerializer}, 401, 403), operation_id="invites"
    )
    def get(self, request: Request) -> Response:
        rows = Invite.objects.select_related("group").order_by("-pk")[:1000]
        return Response({"invites": InviteSerializer(rows, many=True).data})

    @extend_schema(
        tags=TAG,
        summary="Make an invite",
        description="The answer holds the code, in `code`, told this once. Its page is `/register?invite=CODE`.",
        request=NewInviteSerializer,
        responses=answers({201: SecretInviteSerializer}, 400, 401, 403, 413),
        operation_id="invite_create",
    )
    def post(self, request: Request) -> Response:
        wanted = valid(NewInviteSerializer(data=request.data))
        invite, code = invites.make_invite(
            group=_named_group(wanted.get("group")),
            uses=wanted["uses"],
            expires_at=wanted.get("expires"),
            note=wanted["note"],
            by=caller(request),
        )
        return Response({**InviteSerializer(invite).data, "code": code}, status=201, headers=NO_STORE)


class InviteView(APIView):
    permission_classes = [IsAdministrator]

    @extend_schema(
        tags=TAG,
        summary="Revoke an invite",
        responses=answers({204: None}, 401, 403, 404),
        operation_id="invite_revoke",
    )
    def delete(self, request: Request, invite_id: int) -> Response:
        invites.revoke_invite(get_object_or_404(Invite, pk=invite_id))
        return Response(status=204)
