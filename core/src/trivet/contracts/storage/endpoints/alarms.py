"""What can be done with this service's alarms."""

from trivet.contracts.alarm import alarm_operations
from trivet.contracts.storage.alarms import ALARM

CRUD = alarm_operations(ALARM)
