package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// explain adds to an error of the wire what to do about it. verb is what was
// tried: pull or push.
func (c *client) explain(err error, repo name.Repository, verb string) error {
	host := repo.RegistryStr()
	login := host
	if host == name.DefaultRegistry {
		login = "docker.io"
	}
	// An answer to the second try, over plain HTTP, must not hide what was wrong with TLS.
	if next := certificateStep(err, login); next != "" {
		return fmt.Errorf("%w; %s", err, next)
	}
	var answer *transport.Error
	if errors.As(err, &answer) {
		return c.explainAnswer(err, answer, repo, login, verb)
	}
	if next := nextStep(err, login); next != "" {
		return fmt.Errorf("%w; %s", err, next)
	}
	return err
}

func (c *client) explainAnswer(err error, a *transport.Error, repo name.Repository, login, verb string) error {
	switch a.StatusCode {
	case http.StatusUnauthorized:
		return fmt.Errorf("%s refuses to let us %s %s: %s; run `docker login %s`: %w",
			login, verb, repo.RepositoryStr(), c.keys.credentials(repo.RegistryStr()), login, err)
	case http.StatusForbidden:
		return fmt.Errorf("%s does not allow us to %s %s (%s); ask for the right to %s there, or check the name: %w",
			login, verb, repo.RepositoryStr(), c.keys.account(repo.RegistryStr()), verb, err)
	case http.StatusNotFound:
		if verb == "push" {
			return fmt.Errorf("%s has no repository %s and does not create it by itself, or is not a registry; create it there or check the name: %w", login, repo.RepositoryStr(), err)
		}
		return fmt.Errorf("%s does not have it in %s; check name and digest: %w", login, repo.RepositoryStr(), err)
	case http.StatusRequestEntityTooLarge:
		return fmt.Errorf("%s, or a proxy before it, does not take a blob that large; raise its limit (nginx: client_max_body_size 0): %w", login, err)
	case http.StatusTooManyRequests:
		return fmt.Errorf("%s limits how often it may be asked; wait, or log in with `docker login %s`: %w", login, login, err)
	}
	if a.StatusCode >= 500 {
		return fmt.Errorf("%s failed %d times; look at its log or try again later: %w", login, attempts, err)
	}
	return err
}

// certificateStep is the advice for a certificate that is refused.
func certificateStep(err error, host string) string {
	var cert *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var named x509.HostnameError
	switch {
	case errors.As(err, &unknown):
		return fmt.Sprintf("install the CA of %[1]s into /usr/local/share/ca-certificates and run update-ca-certificates, or name its file in the config file: `registries: {%[1]s: {ca: [FILE]}}`", host)
	case errors.As(err, &named):
		return fmt.Sprintf("use the name its certificate is for, or get %s a certificate for this one", host)
	case errors.As(err, &cert):
		return fmt.Sprintf("renew the certificate of %s, or check this machine's clock", host)
	}
	return ""
}

// nextStep is the advice for an error below HTTP, "" where there is none.
func nextStep(err error, host string) string {
	var dns *net.DNSError
	var record tls.RecordHeaderError
	switch {
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &record):
		return fmt.Sprintf("%s answers plain HTTP instead of TLS; if that is meant, pass --insecure", host)
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Sprintf("no such host: check the spelling of %s and this machine's DNS", host)
	case errors.As(err, &dns):
		return "DNS does not answer: check /etc/resolv.conf and the network"
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("nothing listens there: check that %s runs, and its port", host)
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return fmt.Sprintf("there is no route to %s: check the network", host)
	case errors.Is(err, errPlainHTTP):
		return fmt.Sprintf("pass --insecure if %s is meant to be spoken to so", host)
	}
	var slow interface{ Timeout() bool }
	if errors.As(err, &slow) && slow.Timeout() {
		return fmt.Sprintf("%s does not answer: check it, the network and any proxy between", host)
	}
	return ""
}
