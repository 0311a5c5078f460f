-- The second step: reads the trail once, beside traffic, which waits for nothing meanwhile.
ALTER TABLE audit_events VALIDATE CONSTRAINT audit_events_before_end, VALIDATE CONSTRAINT audit_events_actor_check;
ALTER TABLE audit_links VALIDATE CONSTRAINT audit_links_before_end;
