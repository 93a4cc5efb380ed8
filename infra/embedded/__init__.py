"""Kafka, PostgreSQL and an MQTT broker as supervised children: no Docker, no root, nothing to install."""
