CREATE TABLE repos (
	id         text PRIMARY KEY,
	name       text NOT NULL UNIQUE,
	url        text NOT NULL UNIQUE,
	forge      text NOT NULL,
	secret     bytea NOT NULL,
	credential bytea NOT NULL,
	policy     text NOT NULL,
	created    bigint NOT NULL
);

CREATE TABLE deliveries (
	repo     text NOT NULL REFERENCES repos (id) ON DELETE CASCADE,
	id       text NOT NULL,
	event    text NOT NULL,
	received bigint NOT NULL,
	again    bigint NOT NULL DEFAULT 0,
	PRIMARY KEY (repo, id)
);
CREATE INDEX deliveries_received ON deliveries (received);

CREATE TABLE runs (
	seq       {{serial}},
	id        text NOT NULL UNIQUE,
	repo      text NOT NULL REFERENCES repos (id) ON DELETE CASCADE,
	kind      text NOT NULL,
	ref       text NOT NULL,
	base      text NOT NULL,
	old       text NOT NULL,
	sha       text NOT NULL,
	source    text NOT NULL,
	trusted   smallint NOT NULL,
	title     text NOT NULL,
	author    text NOT NULL,
	delivery  text NOT NULL,
	state     text NOT NULL,
	reason    text NOT NULL,
	cancel    text NOT NULL DEFAULT '',
	allowed   text NOT NULL DEFAULT '',
	attempts  integer NOT NULL DEFAULT 0,
	record    text NOT NULL DEFAULT '',
	plan      text NOT NULL DEFAULT '',
	result    text NOT NULL DEFAULT '',
	created   bigint NOT NULL,
	started   bigint NOT NULL DEFAULT 0,
	ended     bigint NOT NULL DEFAULT 0,
	UNIQUE (repo, kind, ref, old, sha)
);
CREATE INDEX runs_state ON runs (state, seq);
CREATE INDEX runs_ref ON runs (repo, ref, seq);

CREATE TABLE attempts (
	run     text NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
	n       integer NOT NULL,
	record  text NOT NULL UNIQUE,
	owner   text NOT NULL,
	beat    bigint NOT NULL,
	started bigint NOT NULL,
	ended   bigint NOT NULL DEFAULT 0,
	state   text NOT NULL,
	reason  text NOT NULL DEFAULT '',
	PRIMARY KEY (run, n)
);
CREATE INDEX attempts_live ON attempts (ended, owner);

CREATE TABLE promotions (
	run    text PRIMARY KEY REFERENCES runs (id) ON DELETE CASCADE,
	owner  text NOT NULL,
	state  text NOT NULL,
	tries  integer NOT NULL DEFAULT 0,
	due    bigint NOT NULL,
	detail text NOT NULL DEFAULT ''
);
CREATE INDEX promotions_due ON promotions (state, due);

CREATE TABLE statuses (
	seq     {{serial}},
	repo    text NOT NULL REFERENCES repos (id) ON DELETE CASCADE,
	run     text NOT NULL,
	sha     text NOT NULL,
	state   text NOT NULL,
	says    text NOT NULL,
	created bigint NOT NULL,
	due     bigint NOT NULL,
	tries   integer NOT NULL DEFAULT 0,
	done    bigint NOT NULL DEFAULT 0,
	problem text NOT NULL DEFAULT ''
);
CREATE INDEX statuses_due ON statuses (done, due);
CREATE INDEX statuses_run ON statuses (run, done);

CREATE TABLE tokens (
	id      text PRIMARY KEY,
	name    text NOT NULL UNIQUE,
	role    text NOT NULL,
	hash    text NOT NULL UNIQUE,
	created bigint NOT NULL,
	expires bigint NOT NULL
);

CREATE TABLE audit (
	seq    {{serial}},
	at     bigint NOT NULL,
	actor  text NOT NULL,
	action text NOT NULL,
	object text NOT NULL,
	detail text NOT NULL
);
