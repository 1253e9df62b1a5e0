"""The oracle: what readelf and nm say, and the rules of docs/oracle.md applied to it. It imports nothing of kplug."""
