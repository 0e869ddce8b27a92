CREATE TABLE schedules (
	repo    text NOT NULL REFERENCES repos (id) ON DELETE CASCADE,
	name    text NOT NULL,
	cron    text NOT NULL,
	zone    text NOT NULL,
	branch  text NOT NULL,
	due     bigint NOT NULL,
	run     text NOT NULL DEFAULT '',
	created bigint NOT NULL,
	PRIMARY KEY (repo, name)
);
