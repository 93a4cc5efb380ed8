"""What runs beside the dataflows: settings, migrations, the embedded stack, the fleet, the commands of ``./justw``."""
