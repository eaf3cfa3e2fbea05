"""Measurements on the devices at hand: networks beside each other, feeds, ceilings, evidence."""
