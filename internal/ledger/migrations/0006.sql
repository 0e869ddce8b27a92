ALTER TABLE runs ADD COLUMN due bigint NOT NULL DEFAULT 0;
UPDATE runs SET due = created;
DROP INDEX runs_state;
CREATE INDEX runs_due ON runs (state, due, seq)
