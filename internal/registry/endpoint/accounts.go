package endpoint

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"golang.org/x/crypto/bcrypt"
)

// Right is something that an account may do.
type Right string

// Rights: Write includes Read, Delete includes both.
const (
	Read   Right = "read"
	Write  Right = "write"
	Delete Right = "delete"
)

func (r Right) rank() int { return strings.Index("    read write delete", " "+string(r)) }

// Account is one line of the file: who, and what at most.
type Account struct {
	Name   string
	Rights Right

	password []byte // bcrypt, as `htpasswd -B` writes it
	token    []byte // SHA-256 of a token that is long and random
}

func (a Account) may(r Right) bool { return a.Rights.rank() >= r.rank() }

// Accounts knows who may use the registry.
type Accounts struct {
	byName map[string]Account

	key   []byte // of this process; a password that was right is remembered under it, not as itself
	mu    sync.Mutex
	right map[string][sha256.Size]byte
	slots chan struct{} // bcrypt costs a core some 50 ms: a flood of guesses gets one core
}

// ReadAccounts reads lines NAME:HASH or NAME:HASH:RIGHT, where HASH is a line of
// `htpasswd -B`, or sha256: and the SHA-256 of a random token in hex. RIGHT is
// read, write (when left out) or delete. Empty lines and those that begin with #
// are skipped.
func ReadAccounts(r io.Reader) (*Accounts, error) {
	a := &Accounts{byName: map[string]Account{}, right: map[string][sha256.Size]byte{}, slots: make(chan struct{}, 1), key: make([]byte, 32)}
	if _, err := rand.Read(a.key); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		account, err := readAccount(line)
		if err == nil && a.byName[account.Name].Name != "" {
			err = fmt.Errorf("%q is there twice; remove one", account.Name)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		a.byName[account.Name] = account
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(a.byName) == 0 {
		return nil, errors.New("no account in it; add one with `htpasswd -B FILE NAME`")
	}
	return a, nil
}

func readAccount(line string) (Account, error) {
	name, rest, ok := strings.Cut(line, ":")
	if !ok || name == "" {
		return Account{}, errors.New("write NAME:HASH or NAME:HASH:RIGHT")
	}
	a := Account{Name: name, Rights: Write}
	if token, isToken := strings.CutPrefix(rest, "sha256:"); isToken {
		rest = token
	}
	hash, right, ok := strings.Cut(rest, ":")
	if ok {
		a.Rights = Right(right)
	}
	if a.Rights != Read && a.Rights != Write && a.Rights != Delete {
		return Account{}, fmt.Errorf("right %q of %q; write read, write or delete", right, name)
	}
	if strings.HasPrefix(hash, "$2") {
		if _, err := bcrypt.Cost([]byte(hash)); err != nil {
			return Account{}, fmt.Errorf("hash of %q: %w; make it with `htpasswd -nB %s`", name, err, name)
		}
		a.password = []byte(hash)
		return a, nil
	}
	token, err := hex.DecodeString(hash)
	if err != nil || len(token) != sha256.Size || !strings.Contains(line, ":sha256:") {
		return Account{}, fmt.Errorf("hash of %q is neither bcrypt nor sha256: and 64 hex digits; make it with `htpasswd -nB %s`", name, name)
	}
	a.token = token
	return a, nil
}

// everyone is whoever asks where there are no accounts.
var everyone = Account{Name: "everyone", Rights: Delete}

// authenticate finds out who asks: a name and password, or a token as password
// or bearer.
func (c *call) authenticate() (Account, error) {
	if c.Accounts == nil {
		return everyone, nil
	}
	name, secret, ok := c.r.BasicAuth()
	if !ok {
		secret, ok = strings.CutPrefix(c.r.Header.Get("Authorization"), "Bearer ")
	}
	if ok {
		if a, found := c.Accounts.find(c.r.Context(), name, secret); found {
			return a, nil
		}
	}
	return Account{}, &problem{http.StatusUnauthorized, "UNAUTHORIZED", "log in with `docker login`"}
}

func (a *Accounts) find(ctx context.Context, name, secret string) (Account, bool) {
	if name == "" { // a bearer's token says who it is
		sum := sha256.Sum256([]byte(secret))
		for _, account := range a.byName {
			if account.token != nil && subtle.ConstantTimeCompare(account.token, sum[:]) == 1 {
				return account, true
			}
		}
		return Account{}, false
	}
	account := a.byName[name]
	if account.token != nil {
		sum := sha256.Sum256([]byte(secret))
		return account, subtle.ConstantTimeCompare(account.token, sum[:]) == 1
	}
	return account, a.checkPassword(ctx, account, secret)
}

// nobody is what a password for an unknown name is compared with, so that the
// time of an answer does not tell which names there are.
var nobody = []byte("$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW")

func (a *Accounts) checkPassword(ctx context.Context, account Account, secret string) bool {
	mac := hmac.New(sha256.New, a.key)
	mac.Write([]byte(account.Name + "\x00" + secret))
	sum := [sha256.Size]byte(mac.Sum(nil))
	a.mu.Lock()
	known, ok := a.right[account.Name]
	a.mu.Unlock()
	if ok && subtle.ConstantTimeCompare(known[:], sum[:]) == 1 {
		return true
	}
	hash := account.password
	if hash == nil {
		hash = nobody
	}
	select {
	case a.slots <- struct{}{}:
	case <-ctx.Done(): // whoever guessed has gone
		return false
	}
	err := bcrypt.CompareHashAndPassword(hash, []byte(secret))
	<-a.slots
	if err != nil || account.password == nil {
		return false
	}
	a.mu.Lock()
	a.right[account.Name] = sum
	a.mu.Unlock()
	return true
}
