"""What administrators do with people, one or many: approve, refuse, block, change roles, move to a group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from unfold.enums import ActionVariant

from accounts import groups, people, second_factor
from accounts.admin.people_forms import GroupChoiceForm
from accounts.models import User
from llmplatform.lib.console.actions import NamedDialogForm, asked_for_all, back, confirmed_action, origin
from llmplatform.lib.errors import ApiError

Change = Callable[[User], Any]
NAMED = 5  # of the people whom something could not be done to


def refusal(error: Exception) -> str:
    """What a service said, as one line."""
    return " ".join(error.messages) if isinstance(error, ValidationError) else str(error)


class PeopleActions:
    """For a page whose rows are people."""

    def _do(self, request: HttpRequest, chosen: list[User], change: Change, done: Callable[[int], str]) -> None:
        """Changes each, and says on the next page how many, and who could not be changed and why."""
        changed, refused = 0, []
        for user in chosen:
            try:
                change(user)
            except (ApiError, ValidationError) as error:
                refused.append(f"{user.username}: {refusal(error)}")
            else:
                changed += 1
        if changed:
            messages.success(request, done(changed))
        for line in refused[:NAMED]:
            messages.error(request, line)
        if len(refused) > NAMED:
            count = len(refused) - NAMED
            text = ngettext("And %(count)d more could not be.", "And %(count)d more could not be.", count)
            messages.error(request, text % {"count": count})

    def _others(self, request: HttpRequest, chosen: QuerySet[User]) -> list[User]:
        """The chosen people without the one who asks: nobody locks themselves out."""
        everybody = list(chosen)
        others = [user for user in everybody if user.pk != request.user.pk]
        if len(others) < len(everybody):
            messages.warning(request, _("Your own account was left as it is."))
        return others

    def _one(self, request: HttpRequest, form: NamedDialogForm, change: Change, done: str) -> HttpResponse:
        user: User = form.target
        if user.pk == request.user.pk:
            messages.warning(request, _("Your own account was left as it is."))
        else:
            self._do(request, [user], change, lambda _count: done % {"name": user.username})
        return back(request, origin(request, reverse("admin:accounts_user_change", args=[user.pk])))

    # -- one ---------------------------------------------------------------------------------------------------------

    @confirmed_action(
        title=gettext_lazy("Approve"),
        text=gettext_lazy("The person can log in from now on."),
        submit=gettext_lazy("Approve"),
        icon="how_to_reg",
        variant=ActionVariant.SUCCESS,
    )
    def approve(self, request: HttpRequest, form: NamedDialogForm, object_id: str) -> HttpResponse:
        return self._one(request, form, people.approve_user, _("%(name)s was approved."))

    @confirmed_action(
        title=gettext_lazy("Refuse"),
        text=gettext_lazy("The registration is turned down; the person cannot log in."),
        submit=gettext_lazy("Refuse"),
        icon="person_off",
    )
    def refuse(self, request: HttpRequest, form: NamedDialogForm, object_id: str) -> HttpResponse:
        return self._one(request, form, people.refuse_user, _("%(name)s was refused."))

    @confirmed_action(
        title=gettext_lazy("Block access"),
        text=gettext_lazy("The person is logged out, and tokens and keys stop working. Nothing is deleted."),
        submit=gettext_lazy("Block access"),
        icon="block",
    )
    def block(self, request: HttpRequest, form: NamedDialogForm, object_id: str) -> HttpResponse:
        return self._one(request, form, people.block_user, _("%(name)s is blocked."))

    @confirmed_action(
        title=gettext_lazy("Give access"),
        text=gettext_lazy("The person can log in again, and keys work again."),
        submit=gettext_lazy("Give access"),
        icon="lock_open",
    )
    def unblock(self, request: HttpRequest, form: NamedDialogForm, object_id: str) -> HttpResponse:
        return self._one(request, form, people.unblock_user, _("%(name)s has access again."))

    @confirmed_action(
        title=gettext_lazy("Remove the second factor"),
        text=gettext_lazy(
            "For somebody who lost the phone and the recovery codes. The password alone lets them in until they set up a new one."
        ),
        submit=gettext_lazy("Remove"),
        icon="phonelink_erase",
    )
    def reset_second_factor(self, request: HttpRequest, form: NamedDialogForm, object_id: str) -> HttpResponse:
        return self._one(request, form, second_factor.remove, _("The second factor of %(name)s is removed."))

    # -- many --------------------------------------------------------------------------------------------------------

    @admin.action(description=gettext_lazy("Approve"), permissions=["operate"])
    def approve_chosen(self, request: HttpRequest, chosen: QuerySet[User]) -> None:
        def done(count: int) -> str:
            return ngettext("%(count)d person approved.", "%(count)d people approved.", count) % {"count": count}

        self._do(request, list(chosen.filter(waiting=True)), people.approve_user, done)

    @admin.action(description=gettext_lazy("Refuse"), permissions=["operate"])
    def refuse_chosen(self, request: HttpRequest, chosen: QuerySet[User]) -> HttpResponse | None:
        waiting = chosen.filter(waiting=True)
        title, text = _("Refuse"), _("These registrations are turned down; the people cannot log in.")
        asked = asked_for_all(self, request, waiting, title=title, text=text, submit=title)
        if isinstance(asked, HttpResponse):
            return asked

        def done(count: int) -> str:
            return ngettext("%(count)d person refused.", "%(count)d people refused.", count) % {"count": count}

        self._do(request, list(waiting), people.refuse_user, done)
        return None

    def _asked(self, request: HttpRequest, chosen: QuerySet[User], title: str, text: str) -> HttpResponse | None:
        """The page that asks, naming the others only; None once it was answered."""
        others = chosen.exclude(pk=request.user.pk or 0)
        asked = asked_for_all(self, request, others, title=title, text=text, submit=title)
        return asked if isinstance(asked, HttpResponse) else None

    @admin.action(description=gettext_lazy("Give access"), permissions=["operate"])
    def activate(self, request: HttpRequest, chosen: QuerySet[User]) -> None:
        def done(count: int) -> str:
            text = ngettext("%(count)d person has access again.", "%(count)d people have access again.", count)
            return text % {"count": count}

        self._do(request, self._others(request, chosen), people.unblock_user, done)

    @admin.action(description=gettext_lazy("Block access"), permissions=["operate"])
    def deactivate(self, request: HttpRequest, chosen: QuerySet[User]) -> HttpResponse | None:
        text = _("These people are logged out, and their tokens and keys stop working. Nothing is deleted.")
        if (question := self._asked(request, chosen, _("Block access"), text)) is not None:
            return question

        def done(count: int) -> str:
            return ngettext("%(count)d person blocked.", "%(count)d people blocked.", count) % {"count": count}

        self._do(request, self._others(request, chosen), people.block_user, done)
        return None

    @admin.action(description=gettext_lazy("Make operators"), permissions=["operate"])
    def make_operator(self, request: HttpRequest, chosen: QuerySet[User]) -> HttpResponse | None:
        text = _("These people may use the console from now on. Administrators among them become operators too.")
        if (question := self._asked(request, chosen, _("Make operators"), text)) is not None:
            return question

        def done(count: int) -> str:
            text = ngettext("%(count)d person is an operator now.", "%(count)d people are operators now.", count)
            return text % {"count": count}

        self._do(request, self._others(request, chosen), lambda user: people.set_role(user, "operator"), done)
        return None

    @admin.action(description=gettext_lazy("Make ordinary users"), permissions=["operate"])
    def make_user(self, request: HttpRequest, chosen: QuerySet[User]) -> HttpResponse | None:
        text = _("These people cannot use the console any more. Chat, keys and balances stay.")
        if (question := self._asked(request, chosen, _("Make ordinary users"), text)) is not None:
            return question

        def done(count: int) -> str:
            text = ngettext(
                "%(count)d person is an ordinary user now.", "%(count)d people are ordinary users now.", count
            )
            return text % {"count": count}

        self._do(request, self._others(request, chosen), lambda user: people.set_role(user, "user"), done)
        return None

    @admin.action(description=gettext_lazy("Move to a group"), permissions=["operate"])
    def move_chosen(self, request: HttpRequest, chosen: QuerySet[User]) -> HttpResponse | None:
        title = _("Move to a group")
        text = _("The group's models, limits and allowance hold for these people from now on.")
        asked = asked_for_all(
            self, request, chosen, title=title, text=text, submit=_("Move"), form_class=GroupChoiceForm
        )
        if isinstance(asked, HttpResponse):
            return asked
        group = asked.cleaned_data["group"]

        def done(count: int) -> str:
            text = ngettext("%(count)d person moved to the group.", "%(count)d people moved to the group.", count)
            return text % {"count": count}

        self._do(request, list(chosen), lambda user: groups.move(user, group), done)
        return None
