"""Creates the table of lighthouses."""

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import migrations, models

DUSK_HELP = (
    "The lamp is lit while the sun is this many degrees below the horizon: "
    "0 is sunset, 6 civil dusk, 12 nautical dusk, 18 full night."
)


class Migration(migrations.Migration):
    initial = True

    dependencies = ()

    operations = (
        migrations.CreateModel(
            name="Lighthouse",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("slug", models.SlugField(unique=True)),
                ("name", models.CharField(max_length=60)),
                ("country", models.CharField(max_length=40)),
                ("latitude", models.FloatField()),
                ("longitude", models.FloatField()),
                ("first_lit", models.PositiveSmallIntegerField()),
                (
                    "dusk_angle",
                    models.FloatField(
                        "dusk angle",
                        default=6,
                        help_text=DUSK_HELP,
                        validators=[MinValueValidator(0), MaxValueValidator(18)],
                    ),
                ),
                ("note", models.CharField(blank=True, max_length=200)),
            ],
            options={"ordering": ("-latitude",)},
        ),
    )
