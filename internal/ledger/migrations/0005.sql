CREATE TABLE receivers (
	id      text PRIMARY KEY,
	url     text NOT NULL,
	repo    text NOT NULL,
	events  text NOT NULL,
	secret  bytea NOT NULL,
	sent    bigint NOT NULL DEFAULT 0,
	problem text NOT NULL DEFAULT '',
	created bigint NOT NULL
);

CREATE TABLE notices (
	seq      {{serial}},
	receiver text NOT NULL REFERENCES receivers (id) ON DELETE CASCADE,
	run      text NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
	event    text NOT NULL,
	state    text NOT NULL,
	says     text NOT NULL,
	created  bigint NOT NULL,
	due      bigint NOT NULL,
	tries    integer NOT NULL DEFAULT 0
);
CREATE INDEX notices_due ON notices (due, seq);
CREATE INDEX notices_receiver ON notices (receiver)
