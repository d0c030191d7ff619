from django.db import transaction
from django.db.models import Max
from django.http import HttpResponse
from django.urls import path

from django_site.models import Entry


@transaction.atomic
def add_entry(request, writer):
    """Numbers a new entry. It commits before it answers: what was answered is on disk."""
    last = Entry.objects.aggregate(number=Max("number"))["number"] or 0
    entry = Entry.objects.create(number=last + 1, writer=writer)
    return HttpResponse(f"{entry.number}\n")


urlpatterns = [path("<int:writer>/entries", add_entry)]
