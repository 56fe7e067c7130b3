"""Where alarms are told: webhook, syslog, mail."""
