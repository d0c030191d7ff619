from django.db import models


class Entry(models.Model):
    number = models.IntegerField(unique=True)
    writer = models.IntegerField()

    class Meta:
        db_table = "entry"
