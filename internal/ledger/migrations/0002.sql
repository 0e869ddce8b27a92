ALTER TABLE runs ADD COLUMN home text NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN asked text NOT NULL DEFAULT '';

INSERT INTO repos (id, name, url, forge, secret, credential, policy, created) VALUES ('uploads', 'uploads', 'uploads', 'uploads', '', '', '{}', 0)
