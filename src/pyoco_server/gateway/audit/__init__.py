"""Who changed what: a line in the log, and an entry in the audit trail."""
