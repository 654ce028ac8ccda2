"""Importing this fills FAULTS."""

from tests.captures import (
    faults_devices,
    faults_dialogs,
    faults_gateways,
    faults_media,
    faults_others,
    faults_registrations,
)
from tests.captures.faults import FAULTS

MODULES = (faults_media, faults_dialogs, faults_registrations, faults_gateways, faults_others,
           faults_devices)

__all__ = ["FAULTS", "MODULES"]
