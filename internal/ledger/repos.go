package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"slipway/pipeline"
)

// Repo is a repository whose deliveries are taken.
type Repo struct {
	ID      string    `json:"id"`   // in the address of its hook
	Name    string    `json:"name"` // how people call it: "shop/web"
	URL     string    `json:"url"`  // clone URL, without credentials
	Forge   string    `json:"forge"`
	Policy  Policy    `json:"policy"`
	Created time.Time `json:"created"`

	Secret     []byte `json:"-"` // that the forge signs with
	Credential []byte `json:"-"` // for cloning and for statuses; may be empty
}

// Policy is what a repository may have, whatever its pipeline says.
type Policy struct {
	// Newest: a newer push to a branch or pull request ends the older run of it.
	Newest bool `json:"newest,omitempty"`
	// Deny lists kinds of event that make no run.
	Deny []string `json:"deny,omitempty"`
	// Forks says what becomes of pull requests from forks; empty: ForksHold. No fork
	// gets secrets, or shares anything with other runs.
	Forks pipeline.Forks `json:"forks,omitempty"`
}

// Uploads is the repository that uploaded runs are of. It is in every ledger; no
// forge delivers to it, and it is not among those that people have registered.
const Uploads = "uploads"

// AddRepo registers a repository.
func (l *Ledger) AddRepo(ctx context.Context, r Repo) error {
	policy, err := json.Marshal(r.Policy)
	if err != nil {
		return err
	}
	return l.change(ctx, "register "+r.Name, func(tx *sql.Tx) error {
		n, err := affected(tx.ExecContext(ctx,
			`INSERT INTO repos (id, name, url, forge, secret, credential, policy, created) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING`,
			r.ID, r.Name, r.URL, r.Forge, l.seal.seal("secret of "+r.ID, r.Secret), l.seal.seal("credential of "+r.ID, r.Credential), string(policy), ms(r.Created)))
		if err == nil && n == 0 {
			err = fmt.Errorf("a repository called %s or at %s is registered already; `slipway repos ls` lists them", r.Name, r.URL)
		}
		return err
	})
}

const repoColumns = `id, name, url, forge, secret, credential, policy, created`

func (l *Ledger) scanRepo(r row) (out Repo, err error) {
	var secret, credential []byte
	var policy string
	var created int64
	if err := r.Scan(&out.ID, &out.Name, &out.URL, &out.Forge, &secret, &credential, &policy, &created); err != nil {
		return out, err
	}
	out.Created = at(created)
	if err := json.Unmarshal([]byte(policy), &out.Policy); err != nil {
		return out, fmt.Errorf("the policy of %s: %w", out.Name, err)
	}
	if out.ID == Uploads {
		return out, nil
	}
	if out.Secret, err = l.seal.open("secret of "+out.ID, secret); err != nil {
		return out, fmt.Errorf("%s: %w", out.Name, err)
	}
	if out.Credential, err = l.seal.open("credential of "+out.ID, credential); err != nil {
		return out, fmt.Errorf("%s: %w", out.Name, err)
	}
	return out, nil
}

// Repo finds a repository by its ID; the error is an ErrNone where there is none.
func (l *Ledger) Repo(ctx context.Context, id string) (Repo, error) {
	return one(ctx, l.read, l.scanRepo, `SELECT `+repoColumns+` FROM repos WHERE id = $1`, id)
}

const repoNamed = `SELECT ` + repoColumns + ` FROM repos WHERE (name = $1 OR id = $2 OR url = $3) AND id <> '` + Uploads + `'`

// RepoNamed finds a repository by its name, ID or URL.
func (l *Ledger) RepoNamed(ctx context.Context, name string) (Repo, error) {
	return one(ctx, l.read, l.scanRepo, repoNamed, name, name, name)
}

// ChangeRepo changes what is registered of a repository, found as by RepoNamed, and
// writes down the deed that change gives: both or neither, and on the repository as
// it is then, so that nobody undoes what another changes at the same time.
func (l *Ledger) ChangeRepo(ctx context.Context, name string, change func(*Repo) (Deed, error)) error {
	return l.change(ctx, "change "+name, func(tx *sql.Tx) error {
		lock := ""
		if l.d.locked != "" {
			lock = " FOR UPDATE"
		}
		r, err := one(ctx, tx, l.scanRepo, repoNamed+lock, name, name, name)
		if err != nil {
			return err
		}
		d, err := change(&r)
		if err != nil {
			return err
		}
		policy, err := json.Marshal(r.Policy)
		if err != nil {
			return err
		}
		taken, err := one(ctx, tx, scanOne[int], `SELECT count(*) FROM repos WHERE id <> $1 AND (name = $2 OR url = $3)`, r.ID, r.Name, r.URL)
		if err == nil && taken > 0 {
			err = &Refusal{fmt.Sprintf("another repository called %s or at %s is registered already; `slipway repos ls` lists them", r.Name, r.URL)}
		}
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE repos SET name = $1, url = $2, forge = $3, secret = $4, credential = $5, policy = $6 WHERE id = $7`,
			r.Name, r.URL, r.Forge, l.seal.seal("secret of "+r.ID, r.Secret), l.seal.seal("credential of "+r.ID, r.Credential), string(policy), r.ID)
		if err != nil {
			return err
		}
		return note(ctx, tx, d)
	})
}

// Repos lists the repositories by name.
func (l *Ledger) Repos(ctx context.Context) ([]Repo, error) {
	return rows(ctx, l.read, l.scanRepo, `SELECT `+repoColumns+` FROM repos WHERE id <> '`+Uploads+`' ORDER BY name`)
}

// DropRepo forgets a repository with all its runs.
func (l *Ledger) DropRepo(ctx context.Context, id string) error {
	return l.change(ctx, "remove a repository", func(tx *sql.Tx) error {
		n, err := affected(tx.ExecContext(ctx, `DELETE FROM repos WHERE id = $1`, id))
		if err == nil && n == 0 {
			err = ErrNone
		}
		return err
	})
}

func affected(r sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}
