"""The form that changes a lighthouse."""

from django import forms

from lighthouses.models import Lighthouse


class LighthouseForm(forms.ModelForm):
    """Edits what a keeper may change."""

    class Meta:
        model = Lighthouse
        fields = ("name", "dusk_angle", "note")
