package ledger

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"time"
)

// Role is what the holder of a token may do.
type Role string

// The roles, each with what those before it may do.
const (
	Viewer    Role = "viewer"    // look
	Developer Role = "developer" // cancel, rerun and upload
	Sysadmin  Role = "sysadmin"  // allow forks
	Admin     Role = "admin"     // tokens and repositories
)

var ranks = map[Role]int{Viewer: 1, Developer: 2, Sysadmin: 3, Admin: 4}

// May says whether a role has what needs another. An unknown one has nothing.
func (r Role) May(needed Role) bool {
	return ranks[r] > 0 && ranks[needed] > 0 && ranks[r] >= ranks[needed]
}

// Token lets a program or a person in. Its secret is told once, when it is made.
type Token struct {
	ID      string     `json:"id"`
	Name    string     `json:"name"`
	Role    Role       `json:"role"`
	Created time.Time  `json:"created"`
	Expires *time.Time `json:"expires,omitempty"`
}

// tokenPrefix lets scanners for leaked secrets know one.
const tokenPrefix = "slipway_"

// AddToken makes a token and gives its secret: 256 random bits, of which the
// ledger has the SHA-256 alone. Guessing it needs no slow hash to be hopeless.
func (l *Ledger) AddToken(ctx context.Context, name string, role Role, expires time.Time) (secret string, _ Token, err error) {
	if ranks[role] == 0 {
		return "", Token{}, fmt.Errorf("no role %q; use viewer, developer, sysadmin or admin", role)
	}
	var b [32]byte
	rand.Read(b[:])
	secret = tokenPrefix + hex.EncodeToString(b[:])
	t := Token{ID: hashOf(secret)[:12], Name: name, Role: role, Created: time.Now().UTC(), Expires: maybe(ms(expires))}
	err = l.change(ctx, "add a token", func(tx *sql.Tx) error {
		n, err := affected(tx.ExecContext(ctx, `INSERT INTO tokens (id, name, role, hash, created, expires) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`,
			t.ID, name, string(role), hashOf(secret), ms(t.Created), ms(expires)))
		if err == nil && n == 0 {
			err = fmt.Errorf("there is a token called %q; give another name, or remove it with `slipway tokens rm`", name)
		}
		return err
	})
	return secret, t, err
}

func hashOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

const tokenColumns = `id, name, role, created, expires`

func scanToken(r row) (t Token, err error) {
	var created, expires int64
	err = r.Scan(&t.ID, &t.Name, &t.Role, &created, &expires)
	t.Created, t.Expires = at(created), maybe(expires)
	return t, err
}

// TokenOf finds whose a secret is; the error is an ErrNone where it is nobody's,
// or its time is over.
func (l *Ledger) TokenOf(ctx context.Context, secret string, now time.Time) (Token, error) {
	return one(ctx, l.read, scanToken, `SELECT `+tokenColumns+` FROM tokens WHERE hash = $1 AND (expires = 0 OR expires > $2)`, hashOf(secret), ms(now))
}

// Tokens lists the tokens by name.
func (l *Ledger) Tokens(ctx context.Context) ([]Token, error) {
	return rows(ctx, l.read, scanToken, `SELECT `+tokenColumns+` FROM tokens ORDER BY name`)
}

// DropToken removes a token by its name or ID.
func (l *Ledger) DropToken(ctx context.Context, name string) error {
	return l.change(ctx, "remove a token", func(tx *sql.Tx) error {
		n, err := affected(tx.ExecContext(ctx, `DELETE FROM tokens WHERE name = $1 OR id = $2`, name, name))
		if err == nil && n == 0 {
			err = ErrNone
		}
		return err
	})
}
