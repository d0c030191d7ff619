from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    operations = [
        migrations.CreateModel(
            name="Entry",
            fields=[
                ("id", models.AutoField(primary_key=True, serialize=False)),
                ("number", models.IntegerField(unique=True)),
                ("writer", models.IntegerField()),
            ],
            options={"db_table": "entry"},
        )
    ]
