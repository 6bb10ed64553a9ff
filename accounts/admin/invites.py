"""Console page for invites."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.decorators import display
from unfold.enums import ActionVariant

from accounts import invites
from accounts.admin.fields import LimitField, MomentField, text_input
from accounts.admin.people_forms import group_field
from accounts.models import Invite, User
from llmplatform.lib.console import formats
from llmplatform.lib.console.actions import NamedDialogForm, back, confirmed_action, origin
from llmplatform.lib.console.admin import ReadOnlyAdmin
from llmplatform.lib.console.badges import badge
from llmplatform.lib.console.pages import OnceForm, add_errors, once, page

MOST_USES = 10_000
SERVICE_NAMES = {"uses_left": "uses"}


class NewInviteForm(OnceForm):
    note = forms.CharField(
        label=gettext_lazy("Note"),
        max_length=200,
        required=False,
        widget=text_input(),
        help_text=gettext_lazy("For yourself, such as who it is for."),
    )
    group = group_field()
    uses = LimitField(
        label=gettext_lazy("How many people may use it"), required=True, min_value=1, max_value=MOST_USES, initial=1
    )
    expires_at = MomentField(
        label=gettext_lazy("Can be used until"), required=False, help_text=gettext_lazy("Empty: for ever.")
    )


@admin.register(Invite)
class InviteAdmin(ReadOnlyAdmin):
    administrators_only = True
    purpose = gettext_lazy("With an invite people make their own account, also while registration is closed.")
    list_display = ("code", "note", "group", "uses_left", "expiry", "status", "maker", "made")
    list_select_related = ("group", "created_by")
    list_filter = ("group",)
    search_fields = ("note", "last4")
    search_help_text = gettext_lazy("Note, or last four characters")
    ordering = ("-id",)
    sortable_by = ()
    actions_row = ("revoke",)
    actions_detail = ("revoke",)
    fields = ("code", "note", "group", "uses_left", "expiry", "status", "maker", "made")

    def has_add_permission(self, request: HttpRequest, *_obj: Any) -> bool:
        return self._may(request)

    @display(description=gettext_lazy("invite"))
    def code(self, invite: Invite) -> str:
        return f"…{invite.last4}"

    @display(description=gettext_lazy("can be used until"))
    def expiry(self, invite: Invite) -> str | SafeString:
        return formats.moment(invite.expires_at, with_date=True) if invite.expires_at else _("for ever")

    @display(description=gettext_lazy("state"))
    def status(self, invite: Invite) -> SafeString:
        if not invite.uses_left:
            return badge(_("used up or revoked"), "off")
        if invite.expires_at is not None and invite.expires_at <= timezone.now():
            return badge(_("expired"), "off")
        return badge(_("in use"), "good")

    @display(description=gettext_lazy("made by"))
    def maker(self, invite: Invite) -> str:
        return invite.created_by.username if invite.created_by else formats.NOTHING

    @display(description=gettext_lazy("made"))
    def made(self, invite: Invite) -> SafeString:
        return formats.moment(invite.created_at, with_date=True)

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = NewInviteForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            answer = self._make(request, form)
            if answer is not None:
                return answer
        text = _("Whoever has the link can register, whatever the rules for others are.")
        return page(
            self,
            request,
            "console/form.html",
            _("Make an invite"),
            form=form,
            form_submit_text=_("Make the link"),
            dialog={"description": text},
        )

    def _make(self, request: HttpRequest, form: NewInviteForm) -> HttpResponse | None:
        filled = form.cleaned_data
        assert isinstance(request.user, User)  # noqa: S101 - for mypy: has_add_permission let nobody else pass
        by = request.user

        def make() -> tuple[Invite, str]:
            return invites.make_invite(
                group=filled["group"], uses=filled["uses"], expires_at=filled["expires_at"], note=filled["note"], by=by
            )

        try:
            made = once(request, form, make)
        except ValidationError as error:
            add_errors(form, error, SERVICE_NAMES)
            return None
        home = reverse("admin:accounts_invite_changelist")
        if made is None:
            return back(request, home)
        path = f"{reverse('register')}?{urlencode({'invite': made[1]})}"
        link = f"{settings.PUBLIC_URL}{path}" if settings.PUBLIC_URL else request.build_absolute_uri(path)
        heading = _("The link of the invite")
        return page(self, request, "console/secret.html", _("New invite"), heading=heading, secret=link, done_url=home)

    @confirmed_action(
        title=gettext_lazy("Revoke"),
        text=gettext_lazy("The link stops working at once. Who registered with it stays. This cannot be undone."),
        submit=gettext_lazy("Revoke"),
        icon="block",
        variant=ActionVariant.DANGER,
    )
    def revoke(self, request: HttpRequest, form: NamedDialogForm, object_id: str) -> HttpResponse:
        invites.revoke_invite(form.target)
        messages.success(request, _("The invite %(name)s was revoked.") % {"name": form.target})
        return back(request, origin(request, reverse("admin:accounts_invite_changelist")))
