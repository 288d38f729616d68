"""Loads the demonstration's rows: sixty lighthouses, the facts rounded, not for navigation."""

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.utils.text import slugify

LIGHTHOUSES = (
    # name, country, latitude, longitude, first lit
    ("Slettnes", "Norway", 71.09, 28.22, 1905),
    ("Fruholmen", "Norway", 71.09, 23.98, 1866),
    ("Hornbjarg", "Iceland", 66.41, -22.38, 1930),
    ("Kjeungskjær", "Norway", 63.73, 9.54, 1880),
    ("Dyrhólaey", "Iceland", 63.40, -19.13, 1927),
    ("Akraberg", "Faroe Islands", 61.39, -6.68, 1909),
    ("Muckle Flugga", "Scotland", 60.86, -0.89, 1858),
    ("Bengtskär", "Finland", 59.72, 22.50, 1906),
    ("Kõpu", "Estonia", 58.92, 22.20, 1531),
    ("Flannan Isles", "Scotland", 58.29, -7.59, 1899),
    ("Lindesnes", "Norway", 57.98, 7.05, 1915),
    ("Pater Noster", "Sweden", 57.90, 11.47, 1868),
    ("Bell Rock", "Scotland", 56.43, -2.39, 1811),
    ("Skerryvore", "Scotland", 56.32, -7.11, 1844),
    ("Dueodde", "Denmark", 54.99, 15.07, 1962),
    ("Westerheversand", "Germany", 54.37, 8.64, 1908),
    ("Brandaris", "Netherlands", 53.36, 5.21, 1594),
    ("Baily", "Ireland", 53.36, -6.05, 1814),
    ("South Stack", "Wales", 53.31, -4.70, 1809),
    ("Fastnet", "Ireland", 51.39, -9.60, 1904),
    ("Beachy Head", "England", 50.73, 0.24, 1902),
    ("Eddystone", "England", 50.18, -4.27, 1882),
    ("Bishop Rock", "England", 49.87, -6.45, 1858),
    ("Cap-des-Rosiers", "Canada", 48.86, -64.20, 1858),
    ("Île Vierge", "France", 48.64, -4.57, 1902),
    ("La Jument", "France", 48.42, -5.13, 1911),
    ("Ar-Men", "France", 48.05, -5.00, 1881),
    ("Cape Spear", "Canada", 47.52, -52.62, 1836),
    ("Cordouan", "France", 45.59, -1.17, 1611),
    ("Cape Sōya", "Japan", 45.52, 141.94, 1885),
    ("Savudrija", "Croatia", 45.49, 13.49, 1818),
    ("Peggys Cove", "Canada", 44.49, -63.92, 1915),
    ("Lanterna of Genoa", "Italy", 44.40, 8.90, 1543),
    ("Portland Head", "United States", 43.62, -70.21, 1791),
    ("Tower of Hercules", "Spain", 43.39, -8.41, 110),
    ("St. George Reef", "United States", 41.84, -124.38, 1892),
    ("Punta Palascìa", "Italy", 40.11, 18.52, 1867),
    ("Cabo da Roca", "Portugal", 38.78, -9.50, 1772),
    ("Pigeon Point", "United States", 37.18, -122.39, 1872),
    ("Cabo de São Vicente", "Portugal", 37.02, -9.00, 1846),
    ("Chipiona", "Spain", 36.74, -6.44, 1867),
    ("Cape Spartel", "Morocco", 35.79, -5.92, 1864),
    ("Inubōsaki", "Japan", 35.71, 140.87, 1874),
    ("Cape Hatteras", "United States", 35.25, -75.53, 1870),
    ("Gibbs Hill", "Bermuda", 32.25, -64.83, 1846),
    ("Guia", "Macau", 22.20, 113.55, 1865),
    ("Eluanbi", "Taiwan", 21.90, 120.85, 1883),
    ("Makapu'u", "United States", 21.31, -157.65, 1909),
    ("Les Mamelles", "Senegal", 14.72, -17.50, 1864),
    ("Minicoy", "India", 8.27, 73.03, 1885),
    ("Galle", "Sri Lanka", 6.02, 80.22, 1939),
    ("Raffles", "Singapore", 1.16, 103.74, 1855),
    ("Farol da Barra", "Brazil", -13.01, -38.53, 1839),
    ("Amédée", "New Caledonia", -22.48, 166.47, 1865),
    ("Cape Byron", "Australia", -28.64, 153.64, 1901),
    ("Cape Agulhas", "South Africa", -34.83, 20.01, 1849),
    ("Cape Leeuwin", "Australia", -34.37, 115.14, 1896),
    ("Castlepoint", "New Zealand", -40.90, 176.23, 1913),
    ("Dog Island", "New Zealand", -46.65, 168.41, 1865),
    ("Les Éclaireurs", "Argentina", -54.87, -68.08, 1920),
)


def load(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Add the rows."""
    fields = ("name", "country", "latitude", "longitude", "first_lit")
    model = apps.get_model("lighthouses", "Lighthouse")
    model.objects.using(schema_editor.connection.alias).bulk_create(
        model(slug=slugify(row[0]), **dict(zip(fields, row, strict=True))) for row in LIGHTHOUSES
    )


class Migration(migrations.Migration):
    dependencies = (("lighthouses", "0001_initial"),)

    operations = (migrations.RunPython(load, migrations.RunPython.noop, elidable=False),)
