"""What the database holds: one table of lighthouses."""

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.urls import reverse


class Lighthouse(models.Model):
    """One lighthouse, and the rule by which its lamp is lit."""

    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=60)
    country = models.CharField(max_length=40)
    latitude = models.FloatField()
    longitude = models.FloatField()
    first_lit = models.PositiveSmallIntegerField()
    dusk_angle = models.FloatField(
        "dusk angle",
        default=6,
        validators=[MinValueValidator(0), MaxValueValidator(18)],
        help_text="The lamp is lit while the sun is this many degrees below the horizon: "
        "0 is sunset, 6 civil dusk, 12 nautical dusk, 18 full night.",
    )
    note = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ("-latitude",)

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("light", args=[self.slug])
